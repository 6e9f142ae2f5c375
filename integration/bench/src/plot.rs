//! A plot of each group: throughput, latency and CPU time over the window.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

use crate::report::{Case, Metric};

const PANELS: [(&str, Metric); 4] = [
    ("sequential", Metric::MegabytesPerSecond),
    ("random", Metric::OperationsPerSecond),
    ("random", Metric::P99Microseconds),
    ("random", Metric::CpuMicrosecondsPerFrame),
];

const SERVERS: [(&str, RGBColor); 5] =
    [("vblade", RED), ("kagero", BLUE), ("kagero-one", CYAN), ("fio", GREEN), ("null", BLACK)];

/// Draws the cases of one group.
pub(crate) fn plot(group: &str, cases: &[&Case], file: &Path) -> Result<()> {
    let area = SVGBackend::new(file, (960, 720)).into_drawing_area();
    draw(group, cases, &area)
        .and_then(|()| area.present().map_err(|e| anyhow!("{e}")))
        .map_err(|e| e.context(format!("{}", file.display())))
}

fn draw(
    group: &str,
    cases: &[&Case],
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    area.fill(&WHITE)?;
    let area = area.titled(group, ("sans-serif", 22))?;
    for (panel, (pattern, metric)) in area.split_evenly((2, 2)).iter().zip(PANELS) {
        let mut cases: Vec<&&Case> = cases.iter().filter(|case| case.pattern == pattern).collect();
        cases.sort_by_key(|case| case.window);
        let points = |server: &str| -> Vec<(f64, crate::sample::Sample)> {
            let sample =
                |(at, case): (usize, &&&Case)| Some((at as f64, *case.samples.get(server)?.get(&metric)?));
            cases.iter().enumerate().filter_map(sample).collect()
        };
        let all = SERVERS.iter().flat_map(|(server, _)| points(server));
        let top = all.map(|(_, sample)| sample.max).fold(0.0, f64::max) * 1.1;
        if top <= 0.0 {
            continue;
        }
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{pattern} reads: {}", metric.title()), ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.3..cases.len() as f64 - 0.7, 0.0..top)?;
        let window = |at: &f64| match cases.get(at.round() as usize) {
            Some(case) if (at - at.round()).abs() < 0.01 => case.window.to_string(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(20)
            .x_label_formatter(&window)
            .x_desc("window")
            .draw()?;
        for (server, colour) in SERVERS {
            let points = points(server);
            if points.is_empty() {
                continue;
            }
            chart
                .draw_series(LineSeries::new(
                    points.iter().map(|(at, s)| (*at, s.median)),
                    colour.stroke_width(2),
                ))?
                .label(server)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(
                points
                    .iter()
                    .map(|(at, s)| ErrorBar::new_vertical(*at, s.min, s.median, s.max, colour.filled(), 8)),
            )?;
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_plot_shows_every_server_that_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        let values = BTreeMap::from([(Metric::MegabytesPerSecond, vec![vec![1.0], vec![2.0], vec![3.0]])]);
        let case = Case {
            group: "a group".into(),
            pattern: "sequential".into(),
            window: 16,
            values: [("vblade".into(), values.clone()), ("kagero".into(), values)].into(),
            ..Case::default()
        };
        plot("a group", &[&case.finish()], &file).unwrap();
        let svg = std::fs::read_to_string(file).unwrap();
        for text in ["<svg", "a group", "MB/s", "vblade", "kagero"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("null"));
    }
}

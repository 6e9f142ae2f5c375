//! As much of HTTP/1.1 (RFC 9112) as it takes to be scraped by Prometheus: GET /metrics, one request a connection.

use super::doors::Said;

/// A request's head, at most.
const LONGEST_HEAD: usize = 8 << 10;

/// Answers a request once its head is there; `page` gives the metrics.
pub(super) fn answer(asked: &[u8], page: &impl Fn() -> String) -> Option<Said> {
    let whole = asked.windows(4).any(|end| end == b"\r\n\r\n");
    if !whole && asked.len() <= LONGEST_HEAD {
        return None;
    }
    let line = asked.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    // A query changes nothing (RFC 9110 4.2.2 has it after a question mark).
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    let (status, body) = match (method, path) {
        _ if !whole => ("431 Request Header Fields Too Large", "at most 8 KiB\n".into()),
        _ if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) => {
            ("400 Bad Request", "this is for GET /metrics\n".into())
        }
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", page()),
        (Some(b"GET"), _) => ("404 Not Found", "the metrics are at /metrics\n".into()),
        _ => ("405 Method Not Allowed", "this is for GET /metrics\n".into()),
    };
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    Some(Said { bytes: [head, body].concat().into_bytes(), last: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &[u8]) -> Option<String> {
        let said = answer(request, &|| "up 1\n".into())?;
        assert!(said.last);
        let text = String::from_utf8(said.bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body == "up 1\n", head.contains(" 200 "));
        Some(head.split(' ').nth(1).unwrap().into())
    }

    #[test]
    fn only_metrics_can_be_had() {
        let get = |request: &str| status(format!("{request}\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(get("GET /metrics HTTP/1.1"), "200");
        assert_eq!(get("GET /metrics?a=b HTTP/1.0"), "200");
        assert_eq!(get("GET / HTTP/1.1"), "404");
        assert_eq!(get("GET /metricsx HTTP/1.1"), "404");
        assert_eq!(get("POST /metrics HTTP/1.1"), "405");
        assert_eq!(get("GET /metrics"), "400");
        assert_eq!(get("GET /metrics HTTP/2.0"), "400");
        assert_eq!(status(b"\r\n\r\n").unwrap(), "400");
        assert_eq!(status(b"\xff\0 \r\n\r\n").unwrap(), "400");
    }

    #[test]
    fn a_head_is_waited_for_as_far_as_it_goes() {
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\n"), None);
        assert_eq!(status(&[b'a'; LONGEST_HEAD]), None);
        assert_eq!(status(&[b'a'; LONGEST_HEAD + 1]).unwrap(), "431");
    }
}

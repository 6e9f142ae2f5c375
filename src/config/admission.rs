//! Who may come in: what an export's `allow=` and `interface=` say.

use kagero_aoe::target::Admission;
use kagero_aoe::wire::MacAddress;

use super::Export;
use crate::error::{BadValue, UserError};

/// Adds stations, written `02:00:00:00:00:01+02-00-00-00-00-02`, to an allow list.
pub(super) fn allow(list: &mut Vec<MacAddress>, text: &str) -> Result<(), BadValue> {
    for text in text.split('+') {
        let station = station(text)?;
        if list.contains(&station) {
            return Err(twice("allow", station));
        }
        list.push(station);
    }
    Ok(())
}

/// Adds an interface to those of an export.
pub(super) fn interface(list: &mut Vec<String>, name: &str) -> Result<(), BadValue> {
    if list.iter().any(|other| other == name) {
        return Err(twice("interface", name));
    }
    list.push(name.into());
    Ok(())
}

fn twice(key: &str, what: impl std::fmt::Display) -> BadValue {
    BadValue { problem: format!("{key} has {what} twice"), mend: "name it once".into() }
}

fn station(text: &str) -> Result<MacAddress, BadValue> {
    let mend = "write six pairs, as 02:00:00:00:00:01, and a + between two stations";
    // As some systems write them. Mixed, it is more likely a slip.
    let colons = if text.contains(':') { text.to_owned() } else { text.replace('-', ":") };
    let station: MacAddress =
        colons.parse().map_err(|_| BadValue::not(text, "a station's Ethernet address", mend))?;
    if station.is_multicast() {
        let what = if station == MacAddress::BROADCAST { "every station" } else { "a group of stations" };
        return Err(BadValue {
            problem: format!("\"{text}\" is {what}, and no frame comes from that"),
            mend: "allow each station by its own address".into(),
        });
    }
    Ok(station)
}

impl Export {
    /// Whom the export lets in, where `interfaces` are those that are served, in the order of their ports.
    ///
    /// # Errors
    /// When it names another interface.
    pub fn admission(&self, interfaces: &[String]) -> Result<Admission, UserError> {
        let mut admission = Admission::default();
        if !self.allow.is_empty() {
            admission = admission.only_stations(self.allow.iter().copied());
        }
        if !self.interfaces.is_empty() {
            let ports: Result<Vec<_>, _> =
                self.interfaces.iter().map(|name| port(self, name, interfaces)).collect();
            admission = admission.only_ports(ports?);
        }
        Ok(admission)
    }
}

fn port(export: &Export, name: &str, interfaces: &[String]) -> Result<u16, UserError> {
    let place = interfaces.iter().position(|other| other == name);
    place.and_then(|place| u16::try_from(place).ok()).ok_or_else(|| {
        UserError::new(
            export.address,
            format!("interface {name} is not served"),
            format!(
                "add --interface {name}; served {}",
                match interfaces {
                    [one] => format!("is {one}"),
                    many => format!("are {}", many.join(", ")),
                }
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xb]);

    fn error(text: &str) -> String {
        text.parse::<Export>().unwrap_err().to_string()
    }

    #[test]
    fn stations_in_every_spelling() {
        for text in [
            "7.1=a,allow=02:00:00:00:00:0a+02:00:00:00:00:0b",
            "7.1=a,allow=02:00:00:00:00:0A+02-00-00-00-00-0b",
            "7.1=a,allow=02:00:00:00:00:0b,read-only,allow=02:00:00:00:00:0a",
        ] {
            let export: Export = text.parse().unwrap();
            assert_eq!(export.admission(&[]).unwrap().stations(), Some(&[A, B][..]), "{text}");
            assert_eq!(export.image, std::path::PathBuf::from("a"));
        }
        assert_eq!("7.1=a".parse::<Export>().unwrap().admission(&[]).unwrap().stations(), None);
    }

    #[test]
    fn stations_that_can_not_be() {
        let mend = "write six pairs, as 02:00:00:00:00:01, and a + between two stations";
        for bad in ["", "02:00:00:00:00", "02:00-00:00-00:01", "020000000001"] {
            assert_eq!(
                error(&format!("7.1=a,allow={bad}")),
                format!("\"{bad}\" is not a station's Ethernet address: {mend}")
            );
        }
        assert_eq!(
            error("7.1=a,allow=ff:ff:ff:ff:ff:ff"),
            "\"ff:ff:ff:ff:ff:ff\" is every station, and no frame comes from that: \
             allow each station by its own address"
        );
        assert_eq!(
            error("7.1=a,allow=02:00:00:00:00:0a+01:00:5e:00:00:01"),
            "\"01:00:5e:00:00:01\" is a group of stations, and no frame comes from that: \
             allow each station by its own address"
        );
        assert_eq!(
            error("7.1=a,allow=02:00:00:00:00:0a+02:00:00:00:00:0b+02-00-00-00-00-0A"),
            "allow has 02:00:00:00:00:0a twice: name it once"
        );
        assert_eq!(error("7.1=a,interface=eth1,interface=eth1"), "interface has eth1 twice: name it once");
    }

    #[test]
    fn interfaces_are_those_that_are_served() {
        let served = ["eth1".to_owned(), "eth2".to_owned()];
        let export: Export = "7.1=a,interface=eth2".parse().unwrap();
        assert_eq!(export.admission(&served), Ok(Admission::default().only_ports([1])));
        assert_eq!(
            export.admission(&served[..1]).unwrap_err().to_string(),
            "7.1: interface eth2 is not served: add --interface eth2; served is eth1"
        );
    }
}

//! Date and time as the clock's registers show them.

/// A time register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Second,
    Minute,
    Hour,
    Weekday,
    Day,
    Month,
    Year,
    Century,
}

/// How registers show numbers: bits DM and 24/12 of register B.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) binary: bool,
    pub(super) hours_24: bool,
}

/// Set in the hours register after noon, when it counts to 12.
const AFTERNOON: u8 = 0x80;

/// A moment, in UTC. Guests may set fields to what no calendar has; [`to_unix`](Self::to_unix) carries over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 for Sunday to 7. Never looked at when the clock is set.
    weekday: u8,
    /// From 1.
    day: u8,
    /// From 1.
    month: u8,
    /// Of the century.
    year: u8,
    century: u8,
}

impl Calendar {
    /// From seconds since 1970. Years past 9999 show their last four digits.
    pub(super) fn from_unix(unix: i64) -> Self {
        let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400) as u32);
        let (year, month, day) = civil(days);
        Self {
            second: (second % 60) as u8,
            minute: (second / 60 % 60) as u8,
            hour: (second / 3600) as u8,
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            day,
            month,
            year: year.rem_euclid(100) as u8,
            century: year.div_euclid(100).rem_euclid(100) as u8,
        }
    }

    /// Seconds since 1970.
    pub(super) fn to_unix(self) -> i64 {
        let Self { second, minute, hour, weekday: _, day, month, year, century } = self;
        let year = i64::from(century) * 100 + i64::from(year);
        let days = days(year, month.into()) + i64::from(day) - 1;
        days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)
    }

    /// The register's value.
    pub(super) fn get(&self, field: Field, format: Format) -> u8 {
        let number = |value: u8| if format.binary { value } else { to_bcd(value) };
        match field {
            Field::Second => number(self.second),
            Field::Minute => number(self.minute),
            Field::Hour if format.hours_24 => number(self.hour),
            Field::Hour => {
                let afternoon = if self.hour % 24 >= 12 { AFTERNOON } else { 0 };
                number((self.hour + 11) % 12 + 1) | afternoon
            }
            Field::Weekday => number(self.weekday),
            Field::Day => number(self.day),
            Field::Month => number(self.month),
            Field::Year => number(self.year),
            Field::Century => number(self.century),
        }
    }

    /// Sets the register's value.
    pub(super) fn set(&mut self, field: Field, value: u8, format: Format) {
        let number = |value: u8| if format.binary { value & 0x7f } else { from_bcd(value) };
        match field {
            Field::Second => self.second = number(value),
            Field::Minute => self.minute = number(value),
            Field::Hour if format.hours_24 => self.hour = number(value),
            Field::Hour => {
                let afternoon = if value & AFTERNOON != 0 { 12 } else { 0 };
                self.hour = number(value & !AFTERNOON) % 12 + afternoon;
            }
            Field::Weekday => self.weekday = number(value),
            Field::Day => self.day = number(value),
            Field::Month => self.month = number(value),
            Field::Year => self.year = number(value),
            Field::Century => self.century = number(value),
        }
    }
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10 % 10) << 4) | (value % 10)
}

fn from_bcd(value: u8) -> u8 {
    (value >> 4) * 10 + (value & 0x0f)
}

/// Years are counted from March here: the leap day is then the last of the year, and `(153 * month + 2) / 5` the days before a month.
const DAYS_BEFORE_1970: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const DAYS_IN_ERA: i64 = 146_097;

/// Days from 1 January 1970 to the first day of `month` (from 1; months past 12 and month 0 carry over).
fn days(year: i64, month: i64) -> i64 {
    let months = year * 12 + month - 3;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5
        - DAYS_BEFORE_1970
}

/// Year, month and day, days after 1 January 1970.
fn civil(days: i64) -> (i64, u8, u8) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days.div_euclid(DAYS_IN_ERA), days.rem_euclid(DAYS_IN_ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month as u8, day_of_month as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD_24: Format = Format { binary: false, hours_24: true };
    const BINARY_12: Format = Format { binary: true, hours_24: false };
    const FIELDS: [Field; 8] = [
        Field::Century,
        Field::Year,
        Field::Month,
        Field::Day,
        Field::Weekday,
        Field::Hour,
        Field::Minute,
        Field::Second,
    ];

    fn shown(unix: i64, format: Format) -> [u8; 8] {
        FIELDS.map(|field| Calendar::from_unix(unix).get(field, format))
    }

    #[test]
    fn shows_known_moments() {
        assert_eq!(shown(0, BCD_24), [0x19, 0x70, 0x01, 0x01, 5, 0, 0, 0], "a Thursday");
        assert_eq!(shown(951_782_399, BCD_24), [0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59]);
        assert_eq!(shown(951_782_400, BCD_24), [0x20, 0x00, 0x02, 0x29, 3, 0, 0, 0]);
        assert_eq!(shown(1_735_689_599, BINARY_12), [20, 24, 12, 31, 3, 11 | 0x80, 59, 59]);
        assert_eq!(shown(4_107_542_400, BINARY_12), [21, 0, 3, 1, 2, 12, 0, 0], "2100 is no leap year");
    }

    #[test]
    fn sets_what_it_shows() {
        for unix in (0..8_000_000_000).step_by(8_639_977) {
            for format in [BCD_24, BINARY_12] {
                let mut calendar = Calendar::from_unix(0);
                for (field, value) in FIELDS.iter().zip(shown(unix, format)) {
                    calendar.set(*field, value, format);
                }
                assert_eq!(calendar.to_unix(), unix);
                assert_eq!(calendar, Calendar::from_unix(unix));
            }
        }
    }

    #[test]
    fn carries_over_what_no_calendar_has() {
        let mut calendar = Calendar::from_unix(0);
        calendar.set(Field::Month, 0x13, BCD_24);
        calendar.set(Field::Second, 0x60, BCD_24);
        assert_eq!(Calendar::from_unix(calendar.to_unix()), Calendar::from_unix(31_536_060));
    }
}

//! Wall clock times as text, in UTC.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A point in time, taken apart.
struct Civil {
    unix: u64,
    nanos: u32,
    year: u64,
    month: u64,    // 1 ..= 12
    day: u64,      // 1 ..= 31
    year_day: u64, // 1 ..= 366
    weekday: u64,  // 0 is Sunday
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Times before 1970 are taken for its first instant.
    ///
    /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = since.as_secs();
        let days = unix / 86_400;
        let shifted = days + 719_468; // from 0000-03-01, so that a leap day ends its year
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let year_day = if month <= 2 {
            from_march - 305
        } else {
            from_march + 60 + u64::from(leap)
        };
        Self {
            unix,
            nanos: since.subsec_nanos(),
            year,
            month,
            day,
            year_day,
            weekday: (days + 4) % 7,
            hour: unix / 3600 % 24,
            minute: unix / 60 % 60,
            second: unix % 60,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS[self.month as usize - 1]
    }
}

/// Appends `2026-01-02T03:04:05.678Z`.
pub(super) fn push_rfc3339(out: &mut Vec<u8>, time: SystemTime) {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
        ..
    } = Civil::of(time);
    let millis = nanos / 1_000_000;
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    )
    .expect("a Vec takes all bytes");
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Year,
    ShortYear,
    Month,
    MonthName,
    ShortMonth,
    Day,
    PaddedDay,
    YearDay,
    Weekday,
    ShortWeekday,
    WeekdayNumber,
    IsoWeekdayNumber,
    Hour,
    Hour12,
    Half,
    Minute,
    Second,
    Unix,
    /// So many digits of the second's fraction, 1 ..= 9.
    Fraction(usize),
}

/// A compiled `strftime` format, with Envoy's `%3f` and absl's `%E3S` for fractions of a second.
#[derive(Debug, PartialEq)]
pub(super) struct TimeFormat(Vec<Piece>);

impl TimeFormat {
    /// Compiles a format; an error is the byte offset of an unknown specifier and what is wrong with it.
    pub(super) fn parse(format: &str) -> Result<Self, (usize, String)> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            push_text(&mut pieces, &rest[..at]);
            let after = &rest[at + 1..];
            let used = specifier(after, &mut pieces).ok_or_else(|| {
                let shown: String = after.chars().take(1).collect();
                (
                    format.len() - rest.len() + at,
                    format!("unknown time specifier `%{shown}`"),
                )
            })?;
            rest = &after[used..];
        }
        push_text(&mut pieces, rest);
        Ok(Self(pieces))
    }

    /// Appends `time` in UTC.
    pub(super) fn push(&self, out: &mut Vec<u8>, time: SystemTime) {
        let civil = Civil::of(time);
        for piece in &self.0 {
            piece.push(out, &civil).expect("a Vec takes all bytes");
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(known)) => known.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// Reads what follows a `%`; returns how many bytes it took.
fn specifier(after: &str, pieces: &mut Vec<Piece>) -> Option<usize> {
    let bytes = after.as_bytes();
    let first = *bytes.first()?;
    if first.is_ascii_digit() {
        let digits = usize::from(first - b'0');
        let legal = digits > 0 && bytes.get(1) == Some(&b'f');
        return legal
            .then(|| pieces.push(Piece::Fraction(digits)))
            .map(|()| 2);
    }
    if first == b'E' {
        let digits = usize::from(*bytes.get(1)?.is_ascii_digit().then_some(&bytes[1])? - b'0');
        if digits == 0 || bytes.get(2) != Some(&b'S') {
            return None;
        }
        pieces.push(Piece::Second);
        push_text(pieces, ".");
        pieces.push(Piece::Fraction(digits));
        return Some(3);
    }
    let nested = match first {
        b'T' => "%H:%M:%S",
        b'R' => "%H:%M",
        b'F' => "%Y-%m-%d",
        b'D' => "%m/%d/%y",
        _ => "",
    };
    if !nested.is_empty() {
        pieces.extend(TimeFormat::parse(nested).ok()?.0);
        return Some(1);
    }
    match first {
        b'%' => push_text(pieces, "%"),
        b'n' | b't' => push_text(pieces, " "), // a line stays one line
        b'z' => push_text(pieces, "+0000"),
        b'Z' => push_text(pieces, "UTC"),
        _ => pieces.push(single(first)?),
    }
    Some(1)
}

fn single(letter: u8) -> Option<Piece> {
    Some(match letter {
        b'Y' => Piece::Year,
        b'y' => Piece::ShortYear,
        b'm' => Piece::Month,
        b'B' => Piece::MonthName,
        b'b' | b'h' => Piece::ShortMonth,
        b'd' => Piece::Day,
        b'e' => Piece::PaddedDay,
        b'j' => Piece::YearDay,
        b'A' => Piece::Weekday,
        b'a' => Piece::ShortWeekday,
        b'w' => Piece::WeekdayNumber,
        b'u' => Piece::IsoWeekdayNumber,
        b'H' => Piece::Hour,
        b'I' => Piece::Hour12,
        b'p' => Piece::Half,
        b'M' => Piece::Minute,
        b'S' => Piece::Second,
        b's' => Piece::Unix,
        b'f' => Piece::Fraction(9),
        _ => return None,
    })
}

impl Piece {
    fn push(&self, out: &mut Vec<u8>, at: &Civil) -> std::io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text.as_bytes()),
            Self::Year => write!(out, "{:04}", at.year),
            Self::ShortYear => write!(out, "{:02}", at.year % 100),
            Self::Month => write!(out, "{:02}", at.month),
            Self::MonthName => out.write_all(at.month_name().as_bytes()),
            Self::ShortMonth => out.write_all(&at.month_name().as_bytes()[..3]),
            Self::Day => write!(out, "{:02}", at.day),
            Self::PaddedDay => write!(out, "{:2}", at.day),
            Self::YearDay => write!(out, "{:03}", at.year_day),
            Self::Weekday => out.write_all(WEEKDAYS[at.weekday as usize].as_bytes()),
            Self::ShortWeekday => out.write_all(&WEEKDAYS[at.weekday as usize].as_bytes()[..3]),
            Self::WeekdayNumber => write!(out, "{}", at.weekday),
            Self::IsoWeekdayNumber => write!(out, "{}", (at.weekday + 6) % 7 + 1),
            Self::Hour => write!(out, "{:02}", at.hour),
            Self::Hour12 => write!(out, "{:02}", (at.hour + 11) % 12 + 1),
            Self::Half => out.write_all(if at.hour < 12 { b"AM" } else { b"PM" }),
            Self::Minute => write!(out, "{:02}", at.minute),
            Self::Second => write!(out, "{:02}", at.second),
            Self::Unix => write!(out, "{}", at.unix),
            Self::Fraction(digits) => {
                let fraction = at.nanos / 10u32.pow(9 - *digits as u32);
                write!(out, "{fraction:0digits$}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(format: &str, unix: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        TimeFormat::parse(format)
            .unwrap()
            .push(&mut out, UNIX_EPOCH + Duration::new(unix, nanos));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(
            shown("%F %T %j %a %A", 0, 0),
            "1970-01-01 00:00:00 001 Thu Thursday"
        );
        assert_eq!(shown("%F %j %w %u", 951_782_400, 0), "2000-02-29 060 2 2");
        assert_eq!(shown("%F %j", 951_868_800, 0), "2000-03-01 061");
        assert_eq!(shown("%F %j", 4_107_542_400, 0), "2100-03-01 060");
        assert_eq!(
            shown("%d %e %b %B %y", 1_772_323_199, 0),
            "28 28 Feb February 26"
        );
        assert_eq!(shown("%F %j", 1_798_675_200, 0), "2026-12-31 365");
    }

    #[test]
    fn fractions_have_as_many_digits_as_asked() {
        assert_eq!(
            shown("%s.%3f %6f %f %1f", 12, 45_678_901),
            "12.045 045678 045678901 0"
        );
        assert_eq!(shown("%E3S%%", 12, 45_678_901), "12.045%");
        assert_eq!(
            shown("%Y/%m/%dT%H:%M:%S%z %Z", 86_399, 0),
            "1970/01/01T23:59:59+0000 UTC"
        );
        assert_eq!(shown("%I %p|%R %D", 43_200, 0), "12 PM|12:00 01/01/70");
    }

    #[test]
    fn the_default_is_rfc_3339_with_milliseconds() {
        let mut out = Vec::new();
        push_rfc3339(
            &mut out,
            UNIX_EPOCH + Duration::from_millis(1_767_323_045_007),
        );
        assert_eq!(out, b"2026-01-02T03:04:05.007Z");
    }

    #[test]
    fn an_unknown_specifier_is_an_error_with_its_place() {
        assert_eq!(
            TimeFormat::parse("%Y %Q").unwrap_err(),
            (3, "unknown time specifier `%Q`".to_owned())
        );
        assert_eq!(TimeFormat::parse("ab%").unwrap_err().0, 2);
        assert_eq!(TimeFormat::parse("%0f").unwrap_err().0, 0);
        assert_eq!(TimeFormat::parse("%Eé").unwrap_err().0, 0);
    }
}

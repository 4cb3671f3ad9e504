//! Cron expressions: when the next snapshot is due.
//!
//! Five fields: minute, hour, day of month, month, day of week. Each is `*`, `?` (the same), or a comma list
//! of values, ranges and steps (`5`, `1-5`, `*/15`, `10-50/20`, `7/2` from 7 on); months and weekdays also by
//! name. The day of month knows `L` (the last), `L-3` (three days before it), `15W` (the weekday nearest to
//! the 15th, in the same month) and `LW`; the day of week knows `5L` (the last Friday), `5#2` (the second)
//! and `L` (Saturday). Sunday is 0 or 7.
//!
//! When both day fields are restricted, a day that fits either is due; a field that lists every value, such
//! as `*/1`, restricts nothing. This is what cron always did, surprising as `0 0 13 * 5` is: every Friday
//! *and* every 13th.
//!
//! An expression whose day never comes (`0 0 30 2 *`) is refused when parsed, so a search always ends:
//! calendars repeat within 28 years, or 40 across 2100, and `SEARCH_DAYS` is beyond both.
//!
//! No clock and no time zone here: the caller hands in seconds and the offset that holds.

use std::fmt;

/// How far ahead a search looks.
const SEARCH_DAYS: i64 = 366 * 41;
/// Longest expression read. The longest sensible one lists every value of every field.
const LEN_MAX: usize = 1024;
const SECS_PER_DAY: i64 = 86_400;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// Bit per value, as in all the fields.
    minutes: u64,
    hours: u64,
    days: Days,
    months: u64,
    weekdays: Weekdays,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Days {
    listed: u64,
    /// `L-n`: bit n is set; `L` is bit 0.
    before_last: u64,
    /// `nW`.
    nearest_weekday: u64,
    /// `LW`
    last_weekday: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Weekdays {
    /// Sunday is bit 0.
    listed: u64,
    /// `nL`
    last: u64,
    /// `n#k`: bit n of element k - 1.
    nth: [u64; 5],
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    /// `minute`, `hour`, `day of month`, `month` or `day of week`; empty when it is about the whole.
    pub field: &'static str,
    /// What was found there.
    pub found: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return write!(f, "cron expression: {}", self.why);
        }
        write!(f, "cron field '{}': '{}' {}", self.field, self.found, self.why)
    }
}

impl std::error::Error for CronError {}

/// What one field may contain.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, names: &[] };
const DAY: Field = Field { name: "day of month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
/// 7 is Sunday as well; [`Cron::parse`] folds it.
const WEEKDAY: Field =
    Field { name: "day of week", min: 0, max: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };

impl Field {
    fn error(&self, found: &str, why: &'static str) -> CronError {
        CronError { field: self.name, found: found.into(), why }
    }

    /// A number or a name, within the field's bounds.
    fn value(&self, text: &str) -> Result<u32, CronError> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.min + index as u32);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(value) if digits && (self.min..=self.max).contains(&value) => Ok(value),
            Ok(_) if digits => Err(self.error(text, "is out of range")),
            _ => Err(self.error(text, "is not a value of this field")),
        }
    }

    /// One element of the comma list, of the forms that all fields share.
    fn element(&self, text: &str) -> Result<u64, CronError> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => match step.parse() {
                Ok(step @ 1..=59) if step_is_plain(text) => (range, Some(step)),
                _ => return Err(self.error(text, "has a step that is not a number from 1 to 59")),
            },
            None => (text, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.min, self.max),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None => {
                let value = self.value(range)?;
                (value, if step.is_some() { self.max } else { value })
            }
        };
        // SAT-SUN is written by people who begin the week on Monday.
        let to = if self.name == WEEKDAY.name && to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return Err(self.error(text, "is a range that ends before it begins"));
        }
        Ok((from..=to).step_by(step.unwrap_or(1)).fold(0, |bits, value| bits | 1 << value))
    }

    fn list(&self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |bits, element| Ok(bits | self.element(element)?))
    }
}

/// Rust's parser takes `+5`.
fn step_is_plain(text: &str) -> bool {
    !text.contains('+')
}

impl Cron {
    /// Reads an expression; the error names the field.
    pub fn parse(text: &str) -> Result<Cron, CronError> {
        let whole = |why| CronError { field: "", found: String::new(), why };
        if text.len() > LEN_MAX {
            return Err(whole("is too long"));
        }
        if crate::value::is_quoted(text) {
            return Err(whole("must not be quoted"));
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(whole("must have five fields: minute, hour, day of month, month, day of week"));
        };
        let cron = Cron {
            minutes: MINUTE.list(minute)?,
            hours: HOUR.list(hour)?,
            days: parse_days(day)?,
            months: MONTH.list(month)?,
            weekdays: parse_weekdays(weekday)?,
        };
        // 2000 to 2041 contains every shape of year: each leap day on each weekday.
        let start = days_from_civil(2000, 1, 1);
        if !(start..start + SEARCH_DAYS).any(|day| cron.fits_day(day)) {
            return Err(DAY.error(day, "is a day that no chosen month has"));
        }
        Ok(cron)
    }

    /// The first due second after `unix_secs`, where local time is `utc_offset_secs` ahead of UTC.
    ///
    /// `None` only at the ends of time, where the arithmetic would overflow.
    pub fn next_after(&self, unix_secs: i64, utc_offset_secs: i32) -> Option<i64> {
        let local = unix_secs.checked_add(i64::from(utc_offset_secs))?;
        let next_minute = local.div_euclid(60).checked_add(1)?;
        let (today, minute_of_day) =
            (next_minute.div_euclid(24 * 60), next_minute.rem_euclid(24 * 60) as u32);
        for day in today..today.checked_add(SEARCH_DAYS)? {
            if !self.fits_day(day) {
                continue;
            }
            let from = if day == today { minute_of_day } else { 0 };
            if let Some(minute) = self.first_minute(from) {
                let local = day.checked_mul(SECS_PER_DAY)?.checked_add(i64::from(minute) * 60)?;
                return local.checked_sub(i64::from(utc_offset_secs));
            }
        }
        None
    }

    /// First due minute of a due day, not before `from`.
    fn first_minute(&self, from: u32) -> Option<u32> {
        (from..24 * 60)
            .find(|minute| self.hours >> (minute / 60) & 1 == 1 && self.minutes >> (minute % 60) & 1 == 1)
    }

    fn fits_day(&self, day: i64) -> bool {
        let (year, month, day_of_month) = civil_from_days(day);
        if self.months >> month & 1 == 0 {
            return false;
        }
        let weekday = weekday(day);
        let last = last_of_month(year, month);
        let first_weekday = (weekday + 35 - (day_of_month - 1)) % 7;
        let by_day = self.days.fits(day_of_month, last, first_weekday);
        let by_weekday = self.weekdays.fits(weekday, day_of_month, last);
        match (self.days.is_free(), self.weekdays.is_free()) {
            (false, false) => by_day || by_weekday,
            _ => by_day && by_weekday,
        }
    }
}

fn parse_days(text: &str) -> Result<Days, CronError> {
    let mut days = Days::default();
    for element in text.split(',') {
        let upper = element.to_ascii_uppercase();
        if upper == "LW" || upper == "WL" {
            days.last_weekday = true;
        } else if upper == "L" {
            days.before_last |= 1;
        } else if let Some(offset) = upper.strip_prefix("L-") {
            match DAY.value(offset)? {
                31 => return Err(DAY.error(element, "is before the month begins")),
                offset => days.before_last |= 1 << offset,
            }
        } else if let Some(near) = upper.strip_suffix('W') {
            days.nearest_weekday |= 1 << DAY.value(near)?;
        } else {
            days.listed |= DAY.element(element)?;
        }
    }
    Ok(days)
}

fn parse_weekdays(text: &str) -> Result<Weekdays, CronError> {
    let mut weekdays = Weekdays::default();
    for element in text.split(',') {
        let upper = element.to_ascii_uppercase();
        if upper == "L" {
            weekdays.listed |= 1 << 6;
        } else if let Some(name) = upper.strip_suffix('L') {
            weekdays.last |= 1 << (WEEKDAY.value(name)? % 7);
        } else if let Some((name, nth)) = upper.split_once('#') {
            let weekday = WEEKDAY.value(name)? % 7;
            match nth {
                "1" | "2" | "3" | "4" | "5" => {
                    weekdays.nth[usize::from(nth.as_bytes()[0] - b'1')] |= 1 << weekday
                }
                _ => return Err(WEEKDAY.error(element, "must end in a number from 1 to 5")),
            }
        } else {
            let listed = WEEKDAY.element(element)?;
            weekdays.listed |= (listed | listed >> 7) & 0x7f;
        }
    }
    Ok(weekdays)
}

impl Days {
    fn is_free(&self) -> bool {
        self.listed >> 1 == (1 << 31) - 1
    }

    fn fits(&self, day: u32, last: u32, first_weekday: u32) -> bool {
        let workday_at = |target: u32| nearest_workday(target, last, first_weekday) == day;
        self.listed >> day & 1 == 1
            || self.before_last >> (last - day) & 1 == 1
            || (self.last_weekday && workday_at(last))
            || (self.nearest_weekday != 0
                && (1..=last).any(|target| self.nearest_weekday >> target & 1 == 1 && workday_at(target)))
    }
}

impl Weekdays {
    fn is_free(&self) -> bool {
        self.listed == 0x7f
    }

    fn fits(&self, weekday: u32, day: u32, last: u32) -> bool {
        self.listed >> weekday & 1 == 1
            || (self.last >> weekday & 1 == 1 && day + 7 > last)
            || self.nth[(day as usize - 1) / 7] >> weekday & 1 == 1
    }
}

/// The Monday to Friday nearest to `target` that is in the same month.
fn nearest_workday(target: u32, last: u32, first_weekday: u32) -> u32 {
    match (first_weekday + target - 1) % 7 {
        6 if target == 1 => 3,
        6 => target - 1,
        0 if target == last => target - 2,
        0 => target + 1,
        _ => target,
    }
}

fn last_of_month(year: i64, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Sunday is 0. The first day of 1970 was a Thursday.
fn weekday(day: i64) -> u32 {
    (day.rem_euclid(7) as u32 + 4) % 7
}

/// Days in a cycle of the Gregorian calendar, 400 years.
const CYCLE_DAYS: i64 = 146_097;
/// From 1 March of the year 0 to 1 January 1970.
const EPOCH_DAYS: i64 = 719_468;

/// Days since 1970. The year is counted from March, so that the leap day is its last and months have a
/// formula.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    cycle * CYCLE_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH_DAYS
}

/// Inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + EPOCH_DAYS;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (cycle * 400 + year + i64::from(month <= 2), month as u32, day_of_month as u32)
}

#[cfg(test)]
mod tests {
    use super::{Cron, civil_from_days, days_from_civil, weekday};

    /// `2026-01-31 06:00` as seconds.
    fn secs(text: &str) -> i64 {
        let numbers: Vec<i64> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap()).collect();
        let [year, month, day, hour, minute] = numbers[..] else { panic!("{text}") };
        days_from_civil(year, month as u32, day as u32) * 86_400 + hour * 3600 + minute * 60
    }

    fn text(secs: i64) -> String {
        let (year, month, day) = civil_from_days(secs.div_euclid(86_400));
        let minute = secs.rem_euclid(86_400) / 60;
        assert_eq!(secs % 60, 0);
        format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
    }

    #[test]
    fn the_next_time() {
        // 2026-01-31 is a Saturday; 2026-02 begins on a Sunday and has 28 days; 2028 is a leap year.
        for (cron, after, next) in [
            ("* * * * *", "2026-01-31 06:00", "2026-01-31 06:01"),
            ("*/15 * * * *", "2026-01-31 06:00", "2026-01-31 06:15"),
            ("7/20 * * * *", "2026-01-31 06:30", "2026-01-31 06:47"),
            ("10-50/20 * * * *", "2026-01-31 06:31", "2026-01-31 06:50"),
            ("0 * * * *", "2026-12-31 23:00", "2027-01-01 00:00"),
            ("0 3 * * *", "2026-01-31 03:00", "2026-02-01 03:00"),
            ("30 1,13 * * ?", "2026-01-31 06:00", "2026-01-31 13:30"),
            ("0 0 31 * *", "2026-01-31 06:00", "2026-03-31 00:00"),
            ("0 0 29 2 *", "2026-01-31 06:00", "2028-02-29 00:00"),
            ("0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"),
            ("0 0 * feb mon-fri", "2026-01-31 06:00", "2026-02-02 00:00"),
            ("0 0 * * 7", "2026-01-31 06:00", "2026-02-01 00:00"),
            ("0 0 * * SAT-SUN", "2026-01-31 06:00", "2026-02-01 00:00"),
            ("0 0 * * 5-7", "2026-02-01 00:00", "2026-02-06 00:00"),
            // Either day field is enough, unless one of them restricts nothing.
            ("0 0 13 * 5", "2026-01-31 06:00", "2026-02-06 00:00"),
            ("0 0 13 * 5", "2026-02-10 00:00", "2026-02-13 00:00"),
            ("0 0 2 * 5", "2026-01-31 06:00", "2026-02-02 00:00"),
            ("0 0 */1 * 5", "2026-01-31 06:00", "2026-02-06 00:00"),
            ("0 0 13 * 0-6", "2026-01-31 06:00", "2026-02-13 00:00"),
            ("0 0 L * *", "2026-02-01 00:00", "2026-02-28 00:00"),
            ("0 0 L-2 * *", "2028-02-01 00:00", "2028-02-27 00:00"),
            ("0 0 LW * *", "2026-02-01 00:00", "2026-02-27 00:00"),
            ("0 0 15W * *", "2026-02-01 00:00", "2026-02-16 00:00"), // the 15th is a Sunday
            ("0 0 14W * *", "2026-02-01 00:00", "2026-02-13 00:00"), // the 14th is a Saturday
            ("0 0 1W * *", "2026-02-01 00:00", "2026-02-02 00:00"),  // Sunday the 1st
            ("0 0 1W * *", "2026-07-31 00:00", "2026-08-03 00:00"),  // Saturday the 1st: not in July
            ("0 0 31W * *", "2026-05-02 00:00", "2026-05-29 00:00"), // Sunday the 31st: not in June
            ("0 0 ? * 5L", "2026-01-31 06:00", "2026-02-27 00:00"),
            ("0 0 ? * FRI#2", "2026-01-31 06:00", "2026-02-13 00:00"),
            ("0 0 ? * L", "2026-02-01 00:00", "2026-02-07 00:00"),
            ("0 0 ? * MON#5", "2026-01-31 06:00", "2026-03-30 00:00"),
            ("0 0 ? 2 MON#5", "2026-01-31 06:00", "2044-02-29 00:00"),
        ] {
            let parsed = Cron::parse(cron).unwrap_or_else(|error| panic!("{cron}: {error}"));
            assert_eq!(
                parsed.next_after(secs(after), 0).map(text).as_deref(),
                Some(next),
                "{cron} after {after}"
            );
        }
    }

    /// Seconds within a minute do not matter, and the offset moves the day, not the instant.
    #[test]
    fn seconds_and_offsets() {
        let noon = Cron::parse("0 12 * * *").unwrap();
        let at = secs("2026-01-31 12:00");
        assert_eq!(noon.next_after(at - 1, 0), Some(at));
        assert_eq!(noon.next_after(at, 0), Some(at + 86_400));
        assert_eq!(noon.next_after(at - 86_400 + 59, 0), Some(at));
        assert_eq!(noon.next_after(at - 7_300, 7_200), Some(at - 7_200));
        assert_eq!(noon.next_after(at, -3 * 3_600), Some(at + 3 * 3_600));
        assert_eq!(noon.next_after(-1, 0), Some(12 * 3_600));
        for end in [i64::MAX, i64::MIN] {
            noon.next_after(end, if end > 0 { 86_400 } else { -86_400 });
        }
    }

    /// Every firing is due, and nothing between two firings is: the search neither skips nor invents.
    #[test]
    fn nothing_is_skipped() {
        for expression in ["*/7 3,4 */2 * *", "0 0 13 * 5", "59 23 L * *", "5 4 ? JAN,DEC 1#1"] {
            let cron = Cron::parse(expression).unwrap();
            let due = |minute: i64| {
                let minute_of_day = minute.rem_euclid(1440) as u32;
                cron.fits_day(minute.div_euclid(1440))
                    && cron.first_minute(minute_of_day) == Some(minute_of_day)
            };
            let start = secs("2027-11-01 00:00") / 60;
            let mut next = start;
            for minute in start + 1..start + 1440 * 200 {
                if next < minute {
                    next = cron.next_after((minute - 1) * 60, 0).unwrap() / 60;
                }
                assert_eq!(due(minute), next == minute, "{expression}");
            }
        }
    }

    #[test]
    fn the_error_names_the_field() {
        for (cron, error) in [
            ("", "cron expression: must have five fields"),
            ("* * * *", "cron expression: must have five fields"),
            ("0 * * * * *", "cron expression: must have five fields"),
            ("\"* * * * *\"", "cron expression: must not be quoted"),
            ("60 * * * *", "cron field 'minute': '60' is out of range"),
            ("* 24 * * *", "cron field 'hour': '24' is out of range"),
            ("* * 0 * *", "cron field 'day of month': '0' is out of range"),
            ("* * * 13 *", "cron field 'month': '13' is out of range"),
            ("* * * * 8", "cron field 'day of week': '8' is out of range"),
            ("* * * FOO *", "cron field 'month': 'FOO' is not a value of this field"),
            ("MON * * * *", "cron field 'minute': 'MON' is not a value"),
            ("5-2 * * * *", "cron field 'minute': '5-2' is a range that ends before it begins"),
            ("*/0 * * * *", "cron field 'minute': '*/0' has a step"),
            ("*/+5 * * * *", "cron field 'minute': '*/+5' has a step"),
            ("+5 * * * *", "cron field 'minute': '+5' is not a value"),
            (", * * * *", "cron field 'minute': '' is not a value"),
            ("99999999999 * * * *", "cron field 'minute': '99999999999' is not a value"),
            ("* * L-31 * *", "cron field 'day of month': 'L-31' is before the month begins"),
            ("* * 32W * *", "cron field 'day of month': '32' is out of range"),
            ("* * * * 5#6", "cron field 'day of week': '5#6' must end in a number from 1 to 5"),
            ("* * L5 * *", "cron field 'day of month': 'L5' is not a value"),
            ("0 0 30 2 *", "cron field 'day of month': '30' is a day that no chosen month has"),
            ("0 0 31 4,6,9,11 *", "is a day that no chosen month has"),
        ] {
            let found = Cron::parse(cron).expect_err(cron).to_string();
            assert!(found.contains(error), "{cron}: {found}");
        }
        assert!(Cron::parse(&"*,".repeat(1000)).is_err());
    }

    /// A calendar counted day by day, through four centuries and every leap rule.
    #[test]
    fn the_calendar() {
        let (mut year, mut month, mut day) = (1899, 12, 31);
        let start = days_from_civil(1899, 12, 31);
        assert_eq!(weekday(start), 0, "a Sunday");
        for number in start..start + 150_000 {
            assert_eq!(civil_from_days(number), (year, month, day));
            assert_eq!(days_from_civil(year, month, day), number);
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (2, 28) if year % 4 != 0 || (year % 100 == 0 && year % 400 != 0) => (year, 3, 1),
                (2, 29) | (4 | 6 | 9 | 11, 30) | (_, 31) => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
        assert_eq!(days_from_civil(1970, 1, 1), 0);
    }
}

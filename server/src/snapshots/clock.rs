//! The calendar of this machine: snapshots are named, and saved, by local time.

#![expect(unsafe_code, reason = "only the system's C library knows the zone and its rules")]

use damselfly_snapshot::Moment;

/// An instant as this machine's clocks and calendars show it.
pub struct Local {
    /// The calendar.
    pub moment: Moment,
    /// By how many seconds it is ahead of UTC.
    pub offset_s: i32,
}

/// Seconds since 1970 in local time; in UTC if the system cannot say.
pub fn local(unix_s: u64) -> Local {
    let time = libc::time_t::try_from(unix_s).unwrap_or(libc::time_t::MAX);
    // SAFETY: all bytes of `tm` may be zero: it has integers and a pointer that nobody follows.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers lead to live values of the right type; the function keeps neither. It reads the
    // environment, which nothing in this process changes.
    if unsafe { libc::localtime_r(&raw const time, &raw mut tm) }.is_null() {
        // A year that does not fit its type: no clock shows that.
        return Local {
            moment: Moment { year: 9999, month: 12, day: 31, hour: 23, minute: 59, second: 59 },
            offset_s: 0,
        };
    }
    let moment = Moment {
        year: (tm.tm_year + 1900).clamp(0, 9999) as u16,
        month: (tm.tm_mon + 1) as u8,
        day: tm.tm_mday as u8,
        hour: tm.tm_hour as u8,
        minute: tm.tm_min as u8,
        second: tm.tm_sec as u8,
    };
    Local { moment, offset_s: tm.tm_gmtoff as i32 }
}

#[cfg(test)]
mod tests {
    use super::local;

    /// The calendar and the offset are of the same zone, whichever that is here.
    #[test]
    fn calendar_and_offset_agree() {
        let unix_s = 1_769_839_209;
        let local = local(unix_s);
        let seconds = (unix_s as i64 + i64::from(local.offset_s)).rem_euclid(86_400);
        let moment = local.moment;
        let shown = i64::from(moment.hour) * 3600 + i64::from(moment.minute) * 60 + i64::from(moment.second);
        assert_eq!((moment.year, moment.month, shown), (2026, 1, seconds));
    }
}

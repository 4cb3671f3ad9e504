//! Commands over positions.

use std::fmt::Write;

use damselfly_tests::random::Random;

/// Makes the lines of a session of positions: some near each other, some near the poles and the date line.
pub struct Positions {
    pub random: Random,
}

impl Positions {
    fn key(&mut self) -> &'static str {
        self.random.pick(&["near", "near", "far", "far", "stored", "wrong", "missing"])
    }

    fn point(&mut self) -> String {
        let micro =
            |random: &mut Random, limit: u64| random.below(2 * limit * 1_000_000) as f64 / 1e6 - limit as f64;
        match self.random.below(20) {
            0 => self.random.pick(&["181 0", "x 0", "0 86", "0 nan"]).to_owned(),
            1..4 => format!("179.9{:05} 85.0{:05}", self.random.below(100_000), self.random.below(51_000)),
            4..10 => format!("{} {}", micro(&mut self.random, 180), micro(&mut self.random, 85)),
            _ => format!("15.{:05} 37.{:05}", self.random.below(100_000), self.random.below(100_000)),
        }
    }

    fn member(&mut self) -> String {
        format!("m{}", self.random.below(400))
    }

    fn size(&mut self) -> String {
        let size = match self.random.below(6) {
            0 => format!("{}", self.random.below(30_000)),
            1 => format!("{}.5", self.random.below(50)),
            2 => self.random.pick(&["0", "-1", "x", "1e3"]).to_owned(),
            _ => format!("{}", self.random.below(300)),
        };
        let unit = self.random.pick(&["km", "km", "mi", "m", "ft", "KM", "ly"]);
        format!("{size} {unit}")
    }

    fn options(&mut self, line: &mut String, key: &str) {
        // No two points are one, so that there is one order only. What is stored may be distances, which are points that
        // are equally far from others.
        if matches!(key, "near" | "far") {
            self.random.some(line, &["ASC", "DESC"], 3);
            self.random.some(line, &["COUNT 3"], 5);
        }
        self.random.some(line, &["WITHCOORD", "WITHDIST", "WITHHASH", "COUNT 20 ANY", "ANY"], 5);
    }

    /// The next command.
    pub fn line(&mut self) -> String {
        let (key, size) = (self.key(), self.size());
        let mut line = match self.random.below(20) {
            0..7 => {
                let mut line = format!("GEOADD {}", self.random.pick(&["near", "far"]));
                self.random.some(&mut line, &["NX", "XX", "CH"], 5);
                for _ in 0..1 + self.random.below(5) {
                    write!(line, " {} {}", self.point(), self.member()).expect("memory");
                }
                return line;
            }
            7 => return format!("GEOPOS {key} {} {}", self.member(), self.member()),
            8 => return format!("GEOHASH {key} {} {}", self.member(), self.member()),
            9 => {
                return format!(
                    "GEODIST {key} {} {} {}",
                    self.member(),
                    self.member(),
                    self.random.pick(&["", "km", "ly"])
                );
            }
            10..14 => format!("GEOSEARCH {key} FROMLONLAT {} BYRADIUS {size}", self.point()),
            14 => format!(
                "GEOSEARCH {key} FROMMEMBER {} BYBOX {} {size}",
                self.member(),
                self.random.below(900)
            ),
            15 => {
                format!("GEOSEARCH {key} BYBOX {} {size} FROMLONLAT {}", self.random.below(900), self.point())
            }
            16 => format!("GEORADIUS {key} {} {size}", self.point()),
            17 => format!("GEORADIUSBYMEMBER {key} {} {size}", self.member()),
            18 => {
                let mut line =
                    format!("GEOSEARCHSTORE stored {key} FROMLONLAT {} BYRADIUS {size}", self.point());
                self.random.some(&mut line, &["STOREDIST"], 3);
                if matches!(key, "near" | "far") {
                    self.random.some(&mut line, &["COUNT 5"], 3);
                }
                return line;
            }
            _ => {
                return String::from(self.random.pick(&[
                    "ZRANGE stored 0 -1 WITHSCORES",
                    "DEBUG DIGEST",
                    "ZCARD near",
                ]));
            }
        };
        self.options(&mut line, key);
        if line.starts_with("GEORADIUS") {
            self.random.some(&mut line, &["STORE stored", "STOREDIST stored"], 8);
        }
        line
    }
}

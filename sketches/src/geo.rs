//! Geo cells: positions as 52-bit scores of a sorted set, and which scores lie near a place.
//!
//! ```text
//! bit  51 50 49 48 ...  1  0        longitude bits at the odd places, latitude bits at the even ones:
//!      lo la lo la     lo la        26 of each, a fraction of the range -180..180 and -85.05112878..85.05112878
//! ```
//!
//! A prefix of such a score names a cell that halves with every bit, so the members of a cell are one range of the
//! sorted set. A search picks the cell size from the radius, takes the cell of the centre and its eight neighbours,
//! drops those that cannot matter ([`Search::ranges`]) and tests every member found exactly ([`Search::distance_to`]).
//!
//! The results of a search without ASC or DESC come in the order of the ranges, and distances are printed with four
//! decimals, so both the choice of ranges and the order of floating-point operations follow Redis 7.0; a "better"
//! formula would be a visible difference. `tests/redis.rs` compares with a real server. Two of its properties are
//! known and kept: areas do not wrap around the 180th meridian, and a cell equal to the one scanned just before is
//! skipped, but a cell that repeats later is not.

/// Western and eastern limit in degrees: the limits are [`LON_MAX`] and its negative.
pub const LON_MAX: f64 = 180.0;

/// Northern limit in degrees, that of the Web Mercator projection; the southern is its negative.
pub const LAT_MAX: f64 = 85.051_128_78;

/// Radius of the sphere that distances are computed on, in metres.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

/// Half the side of the Mercator square in metres: the largest radius that still needs a smaller cell than the world.
const MERCATOR_MAX_M: f64 = 20_037_726.37;

/// Bits per coordinate in a score.
const STEP_MAX: u32 = 26;

const DEGREE: f64 = std::f64::consts::PI / 180.0;

/// A position in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Longitude, east positive.
    pub lon: f64,
    /// Latitude, north positive.
    pub lat: f64,
}

impl Point {
    /// The point, if a score can express it. NaN is no coordinate.
    pub fn new(lon: f64, lat: f64) -> Option<Point> {
        let inside = (-LON_MAX..=LON_MAX).contains(&lon) && (-LAT_MAX..=LAT_MAX).contains(&lat);
        inside.then_some(Point { lon, lat })
    }

    /// The score of the cell the point lies in: 52 bits, so a double holds it exactly. Points on the eastern or
    /// northern limit get a cell outside, with two bits more, of which the double may lose one, as in Redis.
    pub fn score(self) -> f64 {
        Cell::at(self, LAT_MAX, STEP_MAX).bits as f64
    }

    /// The middle of a score's cell. Any score is accepted, as any client may have ZADDed it: what lies outside the
    /// limits is moved onto them.
    pub fn from_score(score: f64) -> Point {
        let area = Cell { bits: score as u64, step: STEP_MAX }.area();
        Point {
            lon: ((area.lon.0 + area.lon.1) / 2.0).clamp(-LON_MAX, LON_MAX),
            lat: ((area.lat.0 + area.lat.1) / 2.0).clamp(-LAT_MAX, LAT_MAX),
        }
    }

    /// Great-circle distance in metres.
    pub fn distance(self, to: Point) -> f64 {
        let (lon, to_lon) = (self.lon * DEGREE, to.lon * DEGREE);
        let v = ((to_lon - lon) / 2.0).sin();
        if v == 0.0 {
            return self.distance_by_latitude(to);
        }
        let (lat, to_lat) = (self.lat * DEGREE, to.lat * DEGREE);
        let u = ((to_lat - lat) / 2.0).sin();
        let a = u * u + lat.cos() * to_lat.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }

    fn distance_by_latitude(self, to: Point) -> f64 {
        EARTH_RADIUS_M * (to.lat * DEGREE - self.lat * DEGREE).abs()
    }

    /// The standard geohash, eleven letters, as GEOHASH prints it. The standard divides the latitudes from -90 to 90,
    /// so the point is encoded anew; its 52 bits fill ten letters and two bits, and Redis prints the last letter as
    /// zero whatever those bits are.
    pub fn geohash(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = Cell::at(self, 90.0, STEP_MAX).bits;
        std::array::from_fn(|at| match at {
            10 => ALPHABET[0],
            _ => ALPHABET[(bits >> (52 - (at + 1) * 5)) as usize & 31],
        })
    }
}

/// Metres in a unit of the GEO commands (`m`, `km`, `ft`, `mi`, in any case).
pub fn unit_in_metres(unit: &[u8]) -> Option<f64> {
    [(&b"m"[..], 1.0), (b"km", 1000.0), (b"ft", 0.3048), (b"mi", 1609.34)]
        .into_iter()
        .find_map(|(name, metres)| unit.eq_ignore_ascii_case(name).then_some(metres))
}

/// The area of a search, in the unit of the command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// BYRADIUS, GEORADIUS.
    Circle {
        /// The radius.
        radius: f64,
    },
    /// BYBOX: as seen from the centre, width along its parallel and height along its meridian.
    Rectangle {
        /// East to west.
        width: f64,
        /// North to south.
        height: f64,
    },
}

/// A search for members near a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Where.
    pub centre: Point,
    /// How far.
    pub shape: Shape,
    /// Metres per unit of the shape; see [`unit_in_metres`].
    pub unit: f64,
}

impl Search {
    /// The ranges of scores to scan, in order, each from its first score up to but without its second. At most nine.
    pub fn ranges(&self) -> impl Iterator<Item = (f64, f64)> + use<> {
        let mut scanned: Option<(usize, Cell)> = None;
        self.cells().into_iter().enumerate().filter_map(move |(place, cell)| {
            let cell = cell?;
            // With a radius of thousands of kilometres neighbours coincide. The first cell never counts as the
            // previous one: Redis keeps its place in a variable whose zero means "none yet".
            if scanned.is_some_and(|(last, previous)| last != 0 && previous == cell) {
                return None;
            }
            scanned = Some((place, cell));
            let below = 2 * (STEP_MAX - cell.step);
            Some(((cell.bits << below) as f64, ((cell.bits + 1) << below) as f64))
        })
    }

    /// The distance in metres from the centre to a member's point, if the member is inside the shape.
    pub fn distance_to(&self, point: Point) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                let distance = self.centre.distance(point);
                (distance <= radius * self.unit).then_some(distance)
            }
            Shape::Rectangle { width, height } => {
                if point.distance_by_latitude(self.centre) > height * self.unit / 2.0 {
                    return None;
                }
                let beside = Point { lon: self.centre.lon, lat: point.lat };
                if point.distance(beside) > width * self.unit / 2.0 {
                    return None;
                }
                Some(self.centre.distance(point))
            }
        }
    }

    /// The cell of the centre and its neighbours, without those that the area cannot reach.
    fn cells(&self) -> [Option<Cell>; 9] {
        let bounds = self.bounds();
        let reach = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Rectangle { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        let mut step = step_for(reach * self.unit, self.centre.lat);
        let mut centre = Cell::at(self.centre, LAT_MAX, step);
        // Near an edge of its cell the area may reach beyond the neighbour: then the cells are one size too small.
        let beyond = centre.moved(0, 1).area().lat.1 < bounds.lat.1
            || centre.moved(0, -1).area().lat.0 > bounds.lat.0
            || centre.moved(1, 0).area().lon.1 < bounds.lon.1
            || centre.moved(-1, 0).area().lon.0 > bounds.lon.0;
        if beyond && step > 1 {
            step -= 1;
            centre = Cell::at(self.centre, LAT_MAX, step);
        }

        let area = centre.area();
        let trim = step >= 2;
        let no_north = trim && area.lat.1 > bounds.lat.1;
        let no_south = trim && area.lat.0 < bounds.lat.0;
        let no_east = trim && area.lon.1 > bounds.lon.1;
        let no_west = trim && area.lon.0 < bounds.lon.0;
        // The order of the scan, which is the order of unsorted results.
        let places = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        places.map(|(east, north)| {
            let dropped = (north > 0 && no_north)
                || (north < 0 && no_south)
                || (east > 0 && no_east)
                || (east < 0 && no_west);
            (!dropped).then(|| centre.moved(east, north))
        })
    }

    /// The box around the area, in degrees. Its sides are meridians, so the side nearer to the pole decides.
    fn bounds(&self) -> Area {
        let (half_width, half_height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Rectangle { width, height } => (width / 2.0, height / 2.0),
        };
        let (half_width, half_height) = (self.unit * half_width, self.unit * half_height);
        let Point { lon, lat } = self.centre;
        let up = half_height / EARTH_RADIUS_M / DEGREE;
        let polewards = if lat < 0.0 { lat - up } else { lat + up };
        let aside = half_width / EARTH_RADIUS_M / (polewards * DEGREE).cos() / DEGREE;
        Area { lon: (lon - aside, lon + aside), lat: (lat - up, lat + up) }
    }
}

/// The cell size for a radius: bits per coordinate, coarser near the poles where cells are narrow.
fn step_for(radius_m: f64, lat: f64) -> u32 {
    if radius_m == 0.0 {
        return STEP_MAX;
    }
    let mut step = 1i32;
    let mut reach = radius_m;
    // At most some 1100 doublings, from the smallest double upwards.
    while reach < MERCATOR_MAX_M {
        reach *= 2.0;
        step += 1;
    }
    step -= 2;
    if lat.abs() > 66.0 {
        step -= 1;
        if lat.abs() > 80.0 {
            step -= 1;
        }
    }
    step.clamp(1, STEP_MAX as i32) as u32
}

/// An interval of longitudes and one of latitudes.
#[derive(Clone, Copy, Debug)]
struct Area {
    lon: (f64, f64),
    lat: (f64, f64),
}

/// A cell: the first `step` bits of longitude and latitude, interleaved.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    bits: u64,
    step: u32,
}

/// The places of the latitude bits; those of the longitude are the others.
const LAT_BITS: u64 = 0x5555_5555_5555_5555;

impl Cell {
    fn at(point: Point, lat_max: f64, step: u32) -> Cell {
        let cells = (1u64 << step) as f64;
        let lat = (point.lat + lat_max) / (lat_max - -lat_max) * cells;
        let lon = (point.lon + LON_MAX) / (LON_MAX - -LON_MAX) * cells;
        Cell { bits: spread(lat as u32) | spread(lon as u32) << 1, step }
    }

    fn area(self) -> Area {
        let cells = (1u64 << self.step) as f64;
        let side = |place: u32, max: f64| {
            let scale = max - -max;
            let edge = |place: u32| -max + f64::from(place) / cells * scale;
            (edge(place), edge(place.wrapping_add(1)))
        };
        Area { lon: side(gather(self.bits >> 1), LON_MAX), lat: side(gather(self.bits), LAT_MAX) }
    }

    /// The neighbour so many cells to the east and north (-1, 0 or 1). It wraps around at the limits.
    fn moved(self, east: i32, north: i32) -> Cell {
        let used = u64::MAX >> (64 - 2 * self.step);
        // Adding within every other bit: the bits between are set so that a carry runs through them.
        let shifted = |bits: u64, ours: u64, by: i32| {
            let (own, between) = (bits & ours, !ours & used);
            let moved = match by {
                0 => own,
                1 => own.wrapping_add(between + 1),
                _ => (own | between).wrapping_sub(between + 1),
            };
            moved & ours & used
        };
        let lon = if east == 0 { self.bits & !LAT_BITS } else { shifted(self.bits, !LAT_BITS, east) };
        let lat = if north == 0 { self.bits & LAT_BITS } else { shifted(self.bits, LAT_BITS, north) };
        Cell { bits: lon | lat, step: self.step }
    }
}

/// Moves bit n to bit 2n.
fn spread(value: u32) -> u64 {
    let mut x = u64::from(value);
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x << 2) & 0x3333_3333_3333_3333;
    (x | x << 1) & LAT_BITS
}

/// Moves bit 2n to bit n: the inverse of [`spread`].
fn gather(value: u64) -> u32 {
    let mut x = value & LAT_BITS;
    x = (x | x >> 1) & 0x3333_3333_3333_3333;
    x = (x | x >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

/// Writes a distance (already in the unit of the command) with four decimals, half to even on the scaled value, as
/// Redis 7.0 does.
pub fn write_distance(distance: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    let sign = if scaled < 0 { "-" } else { "" };
    let scaled = scaled.unsigned_abs();
    write!(out, "{sign}{}.{:04}", scaled / 10_000, scaled % 10_000).expect("a vector takes every byte");
}

/// Writes a coordinate as GEOPOS and WITHCOORD do: seventeen decimals, without the zeros at the end.
pub fn write_coordinate(degrees: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    let start = out.len();
    write!(out, "{degrees:.17}").expect("a vector takes every byte");
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    if &out[start..] == b"-0" {
        out.remove(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Redis documentation.
    #[test]
    fn palermo_and_catania() {
        let palermo = Point::new(13.361389, 38.115556).expect("in Sicily");
        let catania = Point::new(15.087269, 37.502669).expect("in Sicily");
        assert_eq!(palermo.score(), 3479099956230698.0);
        assert_eq!(catania.score(), 3479447370796909.0);
        let [palermo, catania] = [palermo, catania].map(|p| Point::from_score(p.score()));
        assert_eq!(&palermo.geohash(), b"sqc8b49rny0");
        assert_eq!(&catania.geohash(), b"sqdtr74hyu0");
        let mut text = Vec::new();
        write_distance(palermo.distance(catania), &mut text);
        assert_eq!(text, b"166274.1516");
        text.clear();
        write_coordinate(palermo.lon, &mut text);
        assert_eq!(text, b"13.36138933897018433");
    }

    /// Spreading and gathering are inverse, and moving there and back is no move.
    #[test]
    fn bits_round_trip() {
        let mut state = 99u64;
        for _ in 0..10_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            assert_eq!(gather(spread(state as u32)), state as u32);
            let step = (state >> 32) as u32 % STEP_MAX + 1;
            let cell = Cell { bits: state & (u64::MAX >> (64 - 2 * step)), step };
            for (east, north) in [(0, 1), (1, 0), (1, 1), (1, -1)] {
                assert_eq!(cell.moved(east, north).moved(-east, -north), cell);
            }
        }
    }

    /// Forged scores and absurd sizes have an answer.
    #[test]
    fn absurd_input() {
        for score in [f64::NEG_INFINITY, -1.0, 0.0, 1e300, f64::INFINITY, f64::NAN, 2f64.powi(53)] {
            let point = Point::from_score(score);
            assert!(Point::new(point.lon, point.lat).is_some());
            point.geohash();
        }
        assert_eq!(Point::new(f64::NAN, 0.0), None);
        assert_eq!(Point::new(0.0, 85.06), None);
        for size in [0.0, 5e-324, 1.0, 1e9, f64::MAX, f64::INFINITY] {
            for (lon, lat) in [(0.0, 0.0), (180.0, 85.0), (-180.0, -LAT_MAX), (179.999, LAT_MAX)] {
                for shape in [Shape::Circle { radius: size }, Shape::Rectangle { width: size, height: size }]
                {
                    let search = Search { centre: Point { lon, lat }, shape, unit: 1609.34 };
                    let ranges: Vec<_> = search.ranges().collect();
                    assert!((1..=9).contains(&ranges.len()));
                    assert!(ranges.iter().all(|(from, to)| from < to));
                }
            }
        }
    }
}

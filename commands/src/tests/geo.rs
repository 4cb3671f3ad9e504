//! Positions.

use super::session::Session;

/// A session with the cities of Redis' documentation.
#[test]
fn cities() {
    let mut session = Session::new();
    session.check(
        "
        GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania -> :2
        GEODIST g Palermo Catania km -> $8 166.2742
        GEOPOS g Palermo none -> *2 *2 $20 13.36138933897018433 $20 38.11555639549629859 *-1
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km DESC -> *2 $7 Palermo $7 Catania
        GEORADIUS g 15 37 100 km WITHDIST -> *1 *2 $7 Catania $7 56.4413
        GEOSEARCHSTORE d g FROMMEMBER Palermo BYBOX 10 10 km -> :1
        GEOSEARCHSTORE d g FROMLONLAT 0 0 BYRADIUS 1 m -> :0
        EXISTS d -> :0
        ",
    );
    assert_eq!(session.events_of("GEORADIUS g 15 37 200 km STORE d"), "georadiusstore d");
    assert_eq!(session.events_of("GEOADD g XX CH 1 1 none"), "");
    assert_eq!(session.events_of("GEOADD g 1 1 new"), "zadd g");
    assert_eq!(session.events_of("GEOSEARCHSTORE d g FROMLONLAT 0 0 BYRADIUS 1 m"), "del d");
}

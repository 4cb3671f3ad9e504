//! Every decoder of the RDB format against any bytes: as a payload of RESTORE, as one value, and as a file that comes
//! in pieces. Nothing panics, pieces change nothing, and what decodes survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| damselfly_rdb::fuzz_decode(data));

//! Filters and sketches in the RDB format and back.
//!
//! The format's numbers are wider than ours: what does not fit is a payload that nobody wrote. Everything else that
//! may be wrong with one, the `from_parts` of each type looks for.

use damselfly_rdb::Value as Rdb;
use damselfly_sketches::blocks::Blocks;
use damselfly_sketches::bloom::{Bloom, Filter, State as BloomState};
use damselfly_sketches::cms::CountMin;
use damselfly_sketches::cuckoo::{Cuckoo, State as CuckooState};
use damselfly_sketches::topk::TopK;

use crate::CommandError;

pub(super) fn bloom_to_rdb(bloom: &Bloom) -> Rdb {
    let state = bloom.state();
    let head = damselfly_rdb::Bloom {
        options: bloom.options(),
        grow_factor: state.grow_factor,
        fp_probability: state.error_rate,
        prev_size: state.prev_size,
        current_size: state.current_size,
        max_capacity: state.max_capacity,
        filters: bloom.filters().len() as u64,
    };
    let filters =
        bloom.filters().iter().map(|filter| (u64::from(filter.hashes()), filter.bytes().to_vec())).collect();
    Rdb::Bloom(head, filters)
}

pub(super) fn bloom_from_rdb(
    head: &damselfly_rdb::Bloom,
    filters: Vec<(u64, Vec<u8>)>,
) -> Result<Bloom, CommandError> {
    let state = BloomState {
        grow_factor: head.grow_factor,
        error_rate: head.fp_probability,
        prev_size: head.prev_size,
        current_size: head.current_size,
        max_capacity: head.max_capacity,
    };
    let filter = |(hashes, bits): (u64, Vec<u8>)| Filter::new(hashes, cells(&bits)?).map_err(bad);
    let filters = filters.into_iter().map(filter).collect::<Result<_, _>>()?;
    Bloom::from_parts(head.options, state, filters).map_err(bad)
}

pub(super) fn cuckoo_to_rdb(cuckoo: &Cuckoo) -> Rdb {
    let state = cuckoo.state();
    let head = damselfly_rdb::Cuckoo {
        slots_per_bucket: state.bucket_size.into(),
        max_iterations: state.max_iterations.into(),
        expansion: state.expansion.into(),
        buckets: state.buckets,
        items: state.items,
        deletes: state.deletes,
        filters: cuckoo.filters().len() as u64,
    };
    Rdb::Cuckoo(head, cuckoo.filters().iter().map(Blocks::to_vec).collect())
}

pub(super) fn cuckoo_from_rdb(
    head: &damselfly_rdb::Cuckoo,
    filters: Vec<Vec<u8>>,
) -> Result<Cuckoo, CommandError> {
    let state = CuckooState {
        bucket_size: head.slots_per_bucket.try_into().map_err(bad)?,
        max_iterations: head.max_iterations.try_into().map_err(bad)?,
        expansion: head.expansion.try_into().map_err(bad)?,
        buckets: head.buckets,
        items: head.items,
        deletes: head.deletes,
    };
    let filters = filters.iter().map(|slots| cells(slots)).collect::<Result<_, _>>()?;
    Cuckoo::from_parts(state, filters).map_err(bad)
}

pub(super) fn count_min_to_rdb(sketch: &CountMin) -> Rdb {
    Rdb::CountMin {
        width: sketch.width().into(),
        depth: sketch.depth().into(),
        count: sketch.total() as u64,
        counters: sketch.counters().to_vec(),
    }
}

pub(super) fn count_min_from_rdb(
    width: u64,
    depth: u64,
    count: u64,
    counters: &[u8],
) -> Result<CountMin, CommandError> {
    let (width, depth) = (width.try_into().map_err(bad)?, depth.try_into().map_err(bad)?);
    CountMin::from_parts(width, depth, count as i64, cells(counters)?).map_err(bad)
}

pub(super) fn topk_to_rdb(sketch: &TopK) -> Rdb {
    let head = damselfly_rdb::TopK {
        k: sketch.k().into(),
        width: sketch.width().into(),
        depth: sketch.depth().into(),
        decay: sketch.decay(),
        items: sketch.entries().len() as u64,
    };
    let items = sketch.entries().iter().map(|entry| (entry.item.to_vec(), entry.count.into())).collect();
    Rdb::TopK(head, items, sketch.counters().to_vec())
}

pub(super) fn topk_from_rdb(
    head: &damselfly_rdb::TopK,
    items: Vec<(Vec<u8>, u64)>,
    counters: &[u8],
) -> Result<TopK, CommandError> {
    let number = |number: u64| u32::try_from(number).map_err(bad);
    let item = |(item, count): (Vec<u8>, u64)| Ok((item, number(count)?));
    let items = items.into_iter().map(item).collect::<Result<_, CommandError>>()?;
    let (k, width, depth) = (number(head.k)?, number(head.width)?, number(head.depth)?);
    TopK::from_parts(k, width, depth, head.decay, items, cells(counters)?).map_err(bad)
}

fn cells(bytes: &[u8]) -> Result<Blocks, CommandError> {
    Blocks::from_bytes(bytes).ok_or(CommandError::BadPayload)
}

fn bad<E>(_: E) -> CommandError {
    CommandError::BadPayload
}

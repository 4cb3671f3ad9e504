//! Snapshots in a bucket: S3 and its like, Google Cloud Storage, Azure Blob Storage.
//!
//! An object appears whole or not at all, but there is no rename, and a set of files takes as many objects. So every
//! file is sent as a *multipart upload*, of which nothing shows until it is completed, and a journal names all of them
//! before the first one is:
//!
//! ```text
//! parts of all files                                     sent; nothing shows
//! dump-summary.dfs.journal                               written: from here on it is done
//! dump-0000.dfs  dump-0001.dfs  dump-summary.dfs         completed; shards of a larger old set removed
//!                                                        journal removed
//! ```
//!
//! Whoever finds a journal completes the uploads that it names ([`Bucket::recover`]). No byte is sent or copied twice,
//! and objects may be larger than what a store copies at once. What a crash leaves before the journal are parts that do
//! not show; a rule of the bucket's life cycle removes them.
//!
//! Calls block. The network is served by one thread with a runtime of its own, so that a shard's thread never is; do
//! not call from tasks of another runtime. Memory: two parts of each file that is written or read. Time: a request to a
//! bucket that cannot be reached, or does not answer, fails within what [`Patience`] says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, MultipartId, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{Act, Candidate, FileRole, Files, Output, Recovered, Storage, role_of};

/// Parts of uploads: 5 MiB at least, and 10,000 of them at most.
const PART_LEN: usize = 8 << 20;
/// From this part on they are larger, for objects above 39 GiB.
const LONG_PARTS_FROM: usize = 5_000;
const LONG_PART_LEN: usize = 64 << 20;
const PARTS_MAX: usize = 10_000;
/// What is asked of an object at once; two such requests are under way.
const READ_LEN: u64 = 8 << 20;
/// Ends the name of a journal; before it stands that of the set's main file.
const JOURNAL_SUFFIX: &str = ".journal";
const JOURNAL_HEAD: &str = "damselfly uploads journal 1";
const JOURNAL_END: &str = "end";
/// A line for each part: 1024 shards of 40 GiB make 5 million of them.
const JOURNAL_LEN_MAX: u64 = 512 << 20;

/// How S3 is spoken to, beside what the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// Host and port of a server that is not Amazon's; empty for Amazon's.
    pub endpoint: String,
    /// Whether that server is spoken to with TLS.
    pub use_https: bool,
    /// Whether the contents of requests are signed, too.
    pub sign_payload: bool,
    /// Whether the machine's metadata service may be asked for credentials.
    pub ec2_metadata: bool,
}

impl Default for S3Options {
    fn default() -> S3Options {
        S3Options { endpoint: String::new(), use_https: true, sign_payload: true, ec2_metadata: false }
    }
}

/// How long is waited for a bucket, one request at a time. The library's own answer is three minutes of trying and no end
/// to an attempt; a save that goes to nowhere is to be told of sooner.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For a connection.
    connect: Duration,
    /// Between two pieces of an answer, and from the beginning of a request to its first one: a part of an upload must be
    /// through by then, 64 MiB at the most.
    silence: Duration,
    /// For a whole attempt, the answer included: what trickles ends too.
    attempt: Duration,
    /// How long after the first attempt others may begin. Then, at most `silence` later, or `attempt` if something did
    /// come, the request has failed.
    retries: Duration,
    /// Attempts after the first, with pauses that grow to some seconds.
    retries_max: usize,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            attempt: Duration::from_secs(300),
            // So that a connection that has silently died is not the end of a save.
            retries: Duration::from_secs(60),
            retries_max: 10,
        }
    }
}

/// The longest pause before another attempt.
const PAUSE_MAX: Duration = Duration::from_secs(4);

impl Patience {
    fn client(&self) -> ClientOptions {
        ClientOptions::new()
            .with_connect_timeout(self.connect)
            .with_read_timeout(self.silence)
            .with_timeout(self.attempt)
    }

    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig { max_backoff: PAUSE_MAX, ..BackoffConfig::default() };
        RetryConfig { backoff, max_retries: self.retries_max, retry_timeout: self.retries }
    }
}

/// What is needed of a store.
trait Cloud: ObjectStore + MultipartStore {}
impl<T: ObjectStore + MultipartStore> Cloud for T {}

/// Is asked before every act, and lets it fail.
type Faults = dyn Fn(Act) -> io::Result<()> + Send + Sync;

/// See the module's head. Clones are the same place.
#[derive(Clone)]
pub struct Bucket {
    cloud: Arc<dyn Cloud>,
    prefix: Path,
    /// As people are told it, without a slash at the end.
    address: String,
    network: Arc<Network>,
    /// Finished uploads that wait for `publish`, by name.
    uploads: Arc<Mutex<BTreeMap<String, Upload>>>,
    faults: Option<Arc<Faults>>,
}

/// Whether an address is that of a bucket and not the path of a directory.
pub fn is_remote(address: &str) -> bool {
    ["s3://", "gs://", "az://", "https://"].iter().any(|scheme| address.starts_with(scheme))
}

impl Bucket {
    /// The bucket at an address: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or
    /// `https://account.blob.core.windows.net/container/prefix`. Credentials come from the environment, in the names of
    /// each provider's own tools. Nothing is asked of the network yet.
    pub fn open(address: &str, s3: &S3Options) -> io::Result<Bucket> {
        // The only provider that is compiled in; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bad = |text: String| io::Error::new(ErrorKind::InvalidInput, text);
        let (scheme, rest) =
            address.split_once("://").ok_or_else(|| bad(format!("{address} is no address")))?;
        // Before the bucket stands the account's host, in Azure's addresses.
        let (host, rest) = match scheme {
            "https" => rest.split_once('/').unwrap_or((rest, "")),
            _ => ("", rest),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad(format!("{address} names no bucket")));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|error| bad(format!("{address} is no address: {error}")))?;
        let patience = Patience::default();
        let (options, retry) = (patience.client(), patience.retry());
        let cloud: Arc<dyn Cloud> = match scheme {
            "s3" => Arc::new(open_s3(bucket, s3, patience)?),
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env();
                let builder = builder.with_client_options(options).with_retry(retry);
                Arc::new(builder.with_bucket_name(bucket).build().map_err(failed)?)
            }
            "az" => {
                let builder =
                    MicrosoftAzureBuilder::from_env().with_client_options(options).with_retry(retry);
                Arc::new(builder.with_container_name(bucket).build().map_err(failed)?)
            }
            "https" => {
                let builder =
                    MicrosoftAzureBuilder::from_env().with_client_options(options).with_retry(retry);
                let builder = builder.with_url(format!("https://{host}/{bucket}"));
                Arc::new(builder.with_container_name(bucket).build().map_err(failed)?)
            }
            _ => return Err(bad(format!("{scheme}:// is no kind of bucket that is known"))),
        };
        Bucket::over(cloud, prefix, address)
    }

    fn over(cloud: Arc<dyn Cloud>, prefix: Path, address: &str) -> io::Result<Bucket> {
        Ok(Bucket {
            cloud,
            prefix,
            address: address.trim_end_matches('/').to_owned(),
            network: Arc::new(Network::start()?),
            uploads: Arc::default(),
            faults: None,
        })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    fn may(&self, act: Act) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults(act))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.list()?.into_iter().map(|file| file.name).collect())
    }

    /// Runs a request to its end.
    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        self.network
            .begin(request)
            .recv()
            .expect("the network's thread lives as long as the bucket")
            .map_err(failed)
    }

    fn size_of(&self, name: &str) -> io::Result<(u64, Option<String>)> {
        let (cloud, path) = (self.cloud.clone(), self.path(name));
        let meta = self.wait(async move { cloud.head(&path).await })?;
        Ok((meta.size, meta.e_tag))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may(Act::Remove)?;
        let (cloud, path) = (self.cloud.clone(), self.path(name));
        match self.wait(async move { cloud.delete(&path).await }) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes an upload an object. It may have become one before a crash.
    fn complete(&self, name: &str, upload: &Upload) -> io::Result<()> {
        self.may(Act::Rename)?;
        let (cloud, path, Upload { id, parts, .. }) = (self.cloud.clone(), self.path(name), upload.clone());
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        let Err(error) = self.wait(async move { cloud.complete_multipart(&path, &id, parts).await }) else {
            return Ok(());
        };
        // An upload that was completed is forgotten by the store. If somebody else has removed it, the object is an
        // older one; the sizes tell, or else a load does, which finds another snapshot's name in it.
        match self.size_of(name) {
            Ok((len, _)) if len == upload.len => Ok(()),
            _ => Err(error),
        }
    }

    /// Completes all uploads of a set, and removes shards that it does not have.
    fn complete_all(&self, files: &Files, uploads: &BTreeMap<String, Upload>) -> io::Result<()> {
        for name in files.shards.iter().chain([&files.main]) {
            self.complete(name, &uploads[name])?;
        }
        for name in files.beyond(&self.names()?) {
            self.remove(name)?;
        }
        Ok(())
    }

    /// Tells the store to forget an upload. If it does not hear it, a rule of the bucket has to.
    fn abort(&self, name: &str, id: MultipartId) {
        let (cloud, path) = (self.cloud.clone(), self.path(name));
        drop(self.network.begin(async move { cloud.abort_multipart(&path, &id).await }));
    }

    fn write_journal(&self, files: &Files, uploads: &BTreeMap<String, Upload>) -> io::Result<()> {
        self.may(Act::Create)?;
        let text = journal_text(files, uploads);
        let (cloud, path) = (self.cloud.clone(), self.path(&journal_name(files)));
        self.wait(async move { cloud.put(&path, PutPayload::from(text)).await.map(|_| ()) })
    }

    fn read_journal(&self, name: &str) -> io::Result<(Files, BTreeMap<String, Upload>)> {
        let mut text = String::new();
        self.open(name)?.take(JOURNAL_LEN_MAX).read_to_string(&mut text)?;
        let found = parse_journal(&text).filter(|(files, _)| journal_name(files) == name);
        let bad =
            || io::Error::new(ErrorKind::InvalidData, format!("{} is not a journal", self.describe(name)));
        found.ok_or_else(bad)
    }
}

fn open_s3(bucket: &str, s3: &S3Options, patience: Patience) -> io::Result<AmazonS3> {
    const SOURCES: [&str; 5] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ];
    // Without any the library asks the metadata service, which on most machines is a silent wait.
    if !s3.ec2_metadata && SOURCES.iter().all(|name| std::env::var_os(name).is_none()) {
        let text = format!(
            "no credentials in the environment ({}), and no --s3_ec2_metadata",
            SOURCES[..4].join(", ")
        );
        return Err(io::Error::new(ErrorKind::PermissionDenied, text));
    }
    build_s3(AmazonS3Builder::from_env(), bucket, s3, patience)
}

fn build_s3(
    mut builder: AmazonS3Builder,
    bucket: &str,
    s3: &S3Options,
    patience: Patience,
) -> io::Result<AmazonS3> {
    let mut options = patience.client();
    if !s3.endpoint.is_empty() {
        // Other servers have buckets in the path: they have no names of their own for each.
        let scheme = if s3.use_https { "https" } else { "http" };
        let endpoint = match s3.endpoint.contains("://") {
            true => s3.endpoint.clone(),
            false => format!("{scheme}://{}", s3.endpoint),
        };
        options = options.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    let builder = builder.with_bucket_name(bucket).with_unsigned_payload(!s3.sign_payload);
    builder.with_client_options(options).with_retry(patience.retry()).build().map_err(failed)
}

fn failed(error: object_store::Error) -> io::Error {
    use object_store::Error;
    let kind = match error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    };
    // Lines of XML are no part of a message.
    io::Error::new(kind, error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The thread that serves the network.
struct Network {
    handle: Handle,
    /// Ends the thread when it goes.
    _end: oneshot::Sender<()>,
}

impl Network {
    fn start() -> io::Result<Network> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("bucket".to_owned()).spawn(move || {
            // Either it is told, or whoever could tell is gone.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Network { handle, _end: end })
    }

    /// Begins a request, whose result comes through what is returned.
    fn begin<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
        let (result, receiver) = channel();
        self.handle.spawn(async move {
            // Whoever does not listen any more needs no result.
            let _ = result.send(request.await);
        });
        receiver
    }
}

impl Storage for Bucket {
    fn recover(&self) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        for name in self.names()? {
            if let Some(main) = name.strip_suffix(JOURNAL_SUFFIX)
                && matches!(role_of(main), FileRole::Summary(_))
            {
                let (files, uploads) = self.read_journal(&name)?;
                self.complete_all(&files, &uploads)?;
                self.remove(&name)?;
                recovered.completed.push(main.to_owned());
            }
        }
        Ok(recovered)
    }

    fn list(&self) -> io::Result<Vec<Candidate<SystemTime>>> {
        let (cloud, prefix) = (self.cloud.clone(), self.prefix.clone());
        let found = self.wait(async move { cloud.list_with_delimiter(Some(&prefix)).await })?;
        let candidate = |object: object_store::ObjectMeta| {
            let name = object.location.filename()?.to_owned();
            Some(Candidate { name, modified: object.last_modified.into() })
        };
        Ok(found.objects.into_iter().filter_map(candidate).collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.size_of(name)?.0)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let (len, e_tag) = self.size_of(name)?;
        let mut object = Object {
            bucket: self.clone(),
            path: self.path(name),
            e_tag,
            len,
            asked: 0,
            piece: Bytes::new(),
            coming: Default::default(),
        };
        object.ask();
        Ok(Box::new(object))
    }

    fn describe(&self, name: &str) -> String {
        if name.is_empty() { self.address.clone() } else { format!("{}/{name}", self.address) }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Output>> {
        self.may(Act::Create)?;
        let (cloud, path) = (self.cloud.clone(), self.path(name));
        let id = self.wait(async move { cloud.create_multipart(&path).await })?;
        Ok(Box::new(Sending {
            bucket: self.clone(),
            name: name.to_owned(),
            id: Some(id),
            buffer: Vec::new(),
            parts: Vec::new(),
            under_way: None,
            len: 0,
        }))
    }

    fn publish(&self, files: &Files) -> io::Result<()> {
        let mut uploads = BTreeMap::new();
        {
            let mut finished = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            for name in files.shards.iter().chain([&files.main]) {
                let upload = finished.get(name).expect("all files are finished");
                uploads.insert(name.clone(), upload.clone());
            }
            if !files.shards.is_empty() {
                // From the journal on they are not to be discarded. If it cannot be written, it is unknown whether it
                // was: then they are left, too.
                uploads.keys().for_each(|name| drop(finished.remove(name)));
            }
        }
        if files.shards.is_empty() {
            self.complete(&files.main, &uploads[&files.main])?;
            self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&files.main);
            return Ok(());
        }
        self.write_journal(files, &uploads)?;
        self.complete_all(files, &uploads)?;
        self.remove(&journal_name(files))
    }

    fn discard(&self, files: &Files) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        for name in files.shards.iter().chain([&files.main]) {
            if let Some(upload) = uploads.remove(name) {
                self.abort(name, upload.id);
            }
        }
    }
}

/// All of a file is sent, and nothing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Upload {
    id: MultipartId,
    parts: Vec<String>,
    len: u64,
}

/// A file that is being sent.
struct Sending {
    bucket: Bucket,
    name: String,
    /// None once it is handed on.
    id: Option<MultipartId>,
    buffer: Vec<u8>,
    parts: Vec<String>,
    /// The part before the one in the buffer.
    under_way: Option<Receiver<object_store::Result<PartId>>>,
    len: u64,
}

impl Sending {
    fn part_len(&self) -> usize {
        if self.parts.len() < LONG_PARTS_FROM { PART_LEN } else { LONG_PART_LEN }
    }

    /// Waits for the part that is under way.
    fn arrive(&mut self) -> io::Result<()> {
        if let Some(result) = self.under_way.take() {
            let part =
                result.recv().expect("the network's thread lives as long as the bucket").map_err(failed)?;
            self.parts.push(part.content_id);
        }
        Ok(())
    }

    fn depart(&mut self) -> io::Result<()> {
        self.bucket.may(Act::Write)?;
        self.arrive()?;
        let number = self.parts.len();
        if number >= PARTS_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "too large for an object"));
        }
        let data = PutPayload::from(std::mem::take(&mut self.buffer));
        let (cloud, path) = (self.bucket.cloud.clone(), self.bucket.path(&self.name));
        let id = self.id.clone().expect("it is not finished");
        self.under_way =
            Some(self.bucket.network.begin(async move { cloud.put_part(&path, &id, number, data).await }));
        Ok(())
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.part_len() - self.buffer.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.buffer.extend_from_slice(taken);
        self.len += taken.len() as u64;
        if taken.len() == room {
            self.depart()?;
        }
        Ok(taken.len())
    }

    /// Parts are sent when they are full: a small one could not be followed by another.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Sending {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        // An object has one part at least.
        if !self.buffer.is_empty() || self.len == 0 {
            self.depart()?;
        }
        self.arrive()?;
        self.bucket.may(Act::Sync)?;
        let id = self.id.take().expect("it is not finished");
        let upload = Upload { id, parts: std::mem::take(&mut self.parts), len: self.len };
        let mut uploads = self.bucket.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.insert(self.name.clone(), upload);
        Ok(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.bucket.abort(&self.name, id);
        }
    }
}

/// An object that is being read, in pieces of which one more is always asked for.
struct Object {
    bucket: Bucket,
    path: Path,
    /// Pieces of another object under the same name would make a third one.
    e_tag: Option<String>,
    len: u64,
    asked: u64,
    piece: Bytes,
    coming: std::collections::VecDeque<Receiver<object_store::Result<Bytes>>>,
}

impl Object {
    fn ask(&mut self) {
        if self.asked >= self.len {
            return;
        }
        let range = self.asked..self.len.min(self.asked + READ_LEN);
        self.asked = range.end;
        let options =
            GetOptions { range: Some(range.into()), if_match: self.e_tag.clone(), ..GetOptions::default() };
        let (cloud, path) = (self.bucket.cloud.clone(), self.path.clone());
        let piece = async move { cloud.get_opts(&path, options).await?.bytes().await };
        self.coming.push_back(self.bucket.network.begin(piece));
    }
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.ask();
            let Some(coming) = self.coming.pop_front() else { return Ok(0) };
            let piece = coming.recv().expect("the network's thread lives as long as the bucket");
            self.piece = piece.map_err(failed)?;
        }
        let len = self.piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

fn journal_name(files: &Files) -> String {
    format!("{}{JOURNAL_SUFFIX}", files.main)
}

/// A line for everything, each with its kind before it: what a store calls uploads and parts may have any letters.
fn journal_text(files: &Files, uploads: &BTreeMap<String, Upload>) -> String {
    let mut text = format!("{JOURNAL_HEAD}\n");
    for name in files.shards.iter().chain([&files.main]) {
        let Upload { id, parts, len } = &uploads[name];
        write!(text, "file {name}\nlen {len}\nupload {id}\n").expect("strings take all");
        parts.iter().for_each(|part| writeln!(text, "part {part}").expect("strings take all"));
    }
    text + JOURNAL_END + "\n"
}

/// The set that a journal names; none if it is no journal.
fn parse_journal(text: &str) -> Option<(Files, BTreeMap<String, Upload>)> {
    let mut lines =
        text.strip_prefix(JOURNAL_HEAD)?.strip_prefix('\n')?.strip_suffix('\n')?.lines().peekable();
    let (mut names, mut uploads) = (Vec::new(), BTreeMap::new());
    loop {
        let line = lines.next()?;
        if line == JOURNAL_END {
            break;
        }
        let name = line.strip_prefix("file ")?.to_owned();
        let len = lines.next()?.strip_prefix("len ")?.parse().ok()?;
        let id = lines.next()?.strip_prefix("upload ")?.to_owned();
        let mut parts = Vec::new();
        while let Some(part) = lines.peek().and_then(|line| line.strip_prefix("part ")) {
            parts.push(part.to_owned());
            lines.next();
        }
        uploads.insert(name.clone(), Upload { id, parts, len });
        names.push(name);
    }
    let main = names.pop()?;
    let FileRole::Summary(base) = role_of(&main) else { return None };
    let is_shard = |(number, name): (usize, &String)| role_of(name) == FileRole::Shard(base, number);
    let is_set = lines.next().is_none() && !names.is_empty() && names.iter().enumerate().all(is_shard);
    is_set.then_some((Files { main, shards: names }, uploads))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::memory::InMemory;

    use super::*;

    fn bucket(cloud: &Arc<InMemory>) -> Bucket {
        let prefix = Path::parse("some/where").expect("a path");
        Bucket::over(cloud.clone(), prefix, "mem://some/where/").expect("a thread")
    }

    fn set(shards: usize) -> Files {
        let names = (0..shards).map(|shard| format!("dump-{shard:04}.dfs"));
        Files { main: "dump-summary.dfs".to_owned(), shards: names.collect() }
    }

    fn single() -> Files {
        Files { main: "dump.rdb".to_owned(), shards: Vec::new() }
    }

    fn all(files: &Files) -> impl Iterator<Item = &String> {
        files.shards.iter().chain([&files.main])
    }

    /// Saves a snapshot each of whose files has `content`.
    fn save(bucket: &Bucket, files: &Files, content: &[u8]) -> io::Result<()> {
        bucket.recover()?;
        let write = || -> io::Result<()> {
            let mut outputs = all(files).map(|name| bucket.create(name)).collect::<io::Result<Vec<_>>>()?;
            outputs.iter_mut().try_for_each(|output| output.write_all(content))?;
            outputs.into_iter().try_for_each(Output::finish)?;
            bucket.publish(files)
        };
        write().inspect_err(|_| bucket.discard(files))
    }

    fn read(bucket: &Bucket, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        bucket.open(name).expect("it is there").read_to_end(&mut bytes).expect("readable");
        assert_eq!(bucket.len(name).expect("it is there"), bytes.len() as u64);
        bytes
    }

    /// What a start finds: the content that all files there have.
    fn found(cloud: &Arc<InMemory>) -> Vec<u8> {
        let bucket = bucket(cloud);
        bucket.recover().expect("nothing fails any more");
        let mut contents: Vec<Vec<u8>> =
            bucket.names().expect("readable").iter().map(|name| read(&bucket, name)).collect();
        contents.dedup();
        assert_eq!(contents.len(), 1, "all files are of one snapshot");
        contents.remove(0)
    }

    /// Files of no, one and many parts come back, under their names and no others; a set takes the place of a larger
    /// one; what was never published does not show.
    #[test]
    fn files_come_back() {
        let cloud = Arc::new(InMemory::new());
        let bucket = bucket(&cloud);
        let long: Vec<u8> = (0..2 * PART_LEN + 5).map(|at| (at / 7) as u8).collect();
        for (files, content) in [(set(3), &long[..]), (set(1), &long[..PART_LEN]), (set(2), b"")] {
            save(&bucket, &files, content).expect("saved");
            let mut names = bucket.names().expect("readable");
            names.sort();
            let mut expected: Vec<String> = all(&files).cloned().collect();
            expected.sort();
            assert_eq!(names, expected);
            assert!(names.iter().all(|name| read(&bucket, name) == content));
        }
        let mut output = bucket.create("other.rdb").expect("created");
        output.write_all(&long).expect("taken");
        output.finish().expect("sent");
        assert_eq!(bucket.len("other.rdb").expect_err("it is not there").kind(), ErrorKind::NotFound);
        bucket.discard(&Files { main: "other.rdb".to_owned(), shards: Vec::new() });
        assert!(bucket.uploads.lock().expect("not poisoned").is_empty());
        assert_eq!(bucket.describe("x"), "mem://some/where/x");
    }

    /// A crash before any act of a save, and a crash again while it is recovered from, leaves the old snapshot or the
    /// new one, whole.
    #[test]
    fn crashes() {
        for files in [set(3), single()] {
            let (mut olds, mut news) = (0, 0);
            for last in 0.. {
                let cloud = Arc::new(InMemory::new());
                save(&bucket(&cloud), &files, b"old").expect("saved");
                let crashed = |after: usize| {
                    let acts = AtomicUsize::new(0);
                    let faults = move |_| match acts.fetch_add(1, Ordering::Relaxed) >= after {
                        true => Err(io::Error::other("dead")),
                        false => Ok(()),
                    };
                    Bucket { faults: Some(Arc::new(faults)), ..bucket(&cloud) }
                };
                let ended = save(&crashed(last), &files, b"newer").is_ok();
                for again in 0..last % 7 {
                    let _ = crashed(again).recover();
                }
                match found(&cloud).as_slice() {
                    b"old" => olds += 1,
                    b"newer" => news += 1,
                    other => panic!("after {last} acts: {other:?}"),
                }
                if ended {
                    break;
                }
            }
            assert!(olds > 3 && news >= 1, "{olds} {news}");
        }
    }

    /// Journals are read as they were written; anything else is none.
    #[test]
    fn journals() {
        let upload = |id: &str, parts: &[&str]| Upload {
            id: id.to_owned(),
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            len: 7,
        };
        let files = set(2);
        let uploads: BTreeMap<String, Upload> = all(&files)
            .cloned()
            .zip([upload("a b", &["\"x\"", "y"]), upload("", &[]), upload("file", &["end"])])
            .collect();
        let text = journal_text(&files, &uploads);
        assert_eq!(parse_journal(&text), Some((files, uploads)));
        for len in 0..text.len() {
            assert_eq!(parse_journal(&text[..len]), None);
        }
        assert_eq!(parse_journal(&text.replace("dump-0001", "dump-0007")), None);
        assert_eq!(parse_journal(&text.replace("len 7", "len x")), None);
        assert_eq!(parse_journal(&text.replace("dump-summary.dfs", "../x")), None);
    }

    /// A bucket whose server is not there, or takes connections and says nothing, is given up within the bounds, with words
    /// that name it: before a save begins, and in its midst.
    #[test]
    fn unreachable() {
        let patience = Patience {
            connect: Duration::from_millis(200),
            silence: Duration::from_millis(200),
            attempt: Duration::from_millis(400),
            retries: Duration::from_millis(300),
            retries_max: 3,
        };
        let silent = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let gone = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let ports = [&silent, &gone].map(|listener| listener.local_addr().expect("bound").port());
        drop(gone);
        let _ = rustls::crypto::ring::default_provider().install_default();
        for port in ports {
            let builder = AmazonS3Builder::new().with_access_key_id("x").with_secret_access_key("y");
            let s3 =
                S3Options { endpoint: format!("127.0.0.1:{port}"), use_https: false, ..S3Options::default() };
            let cloud = build_s3(builder, "backups", &s3, patience).expect("nothing is asked yet");
            let bucket = Bucket::over(Arc::new(cloud), Path::default(), "s3://backups").expect("a thread");
            let started = std::time::Instant::now();
            let listed = bucket.recover().expect_err("nobody answers").to_string();
            let created = bucket.create("dump-0000.dfs").map(|_| ()).expect_err("nobody answers").to_string();
            let opened = bucket.open("dump.rdb").map(|_| ()).expect_err("nobody answers").to_string();
            assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
            for text in [listed, created, opened] {
                assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
            }
        }
    }

    /// Addresses that lead nowhere are refused with words, before anything is asked of the network.
    #[test]
    fn addresses() {
        let open = |address: &str| Bucket::open(address, &S3Options::default()).map(|_| ());
        for (address, text) in
            [("s3://", "names no bucket"), ("ftp://x/y", "no kind of bucket"), ("x", "no address")]
        {
            let error = open(address).expect_err(address).to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(is_remote("s3://bucket") && is_remote("https://a.blob.core.windows.net/c"));
        assert!(!is_remote("/data") && !is_remote("data") && !is_remote(""));
    }
}

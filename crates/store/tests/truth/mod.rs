//! A store whose every reading is known: what counts, what was overwritten or deleted, and where its chunks lie.

use graylogic_line::Timestamp;
use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value, WriteOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_767_225_600_000_000_000;

pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..4).for_each(|_| _ = dice.below(2));
        dice
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// A series without its bucket, whose name is in its tags, and a time.
pub(crate) type Key = (String, i64);

/// What a store shows.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) values: BTreeMap<Key, Value>,
    /// Something could not be read, and said so.
    pub(crate) failed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Is {
    /// The value that counts.
    Current,
    /// A value that was overwritten or deleted.
    Old,
    /// Another store has it.
    Others,
    /// It was never written.
    Never,
}

/// A piece of a file that holds bytes of a chunk.
struct Piece {
    file: &'static str,
    at: usize,
    bytes: usize,
}

/// A chunk of a base, and where its bytes lie.
struct Chunk {
    series: String,
    t0: i64,
    t1: i64,
    pieces: Vec<Piece>,
}

/// A folder that damage begins with.
struct Base {
    folder: PathBuf,
    chunks: Vec<Chunk>,
}

pub(crate) struct Truth {
    _place: tempfile::TempDir,
    bases: Vec<Base>,
    /// Copies of the folder from earlier times.
    older: Vec<PathBuf>,
    /// Another store with series of the same names.
    pub(crate) other: PathBuf,
    current: BTreeMap<Key, Value>,
    ever: BTreeMap<Key, Vec<Value>>,
    names: BTreeSet<String>,
}

pub(crate) fn open(folder: &Path) -> Result<Store, graylogic_store::Error> {
    Store::open(folder, StoreOptions::default().without_workers())
}

fn name(series: &graylogic_store::SeriesInfo) -> String {
    let tags: Vec<String> = series.tags().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{} {} {}", series.measurement(), tags.join(","), series.field())
}

/// Everything a store shows.
pub(crate) fn look(store: &Store) -> Seen {
    let mut seen = Seen::default();
    for bucket in store.buckets() {
        let Ok(scan) = store.scan(&Selector::bucket(&bucket.name), TimeRange::all()) else {
            seen.failed = true;
            continue;
        };
        for block in scan {
            let Ok(block) = block else {
                seen.failed = true;
                continue;
            };
            let name = name(&block.series);
            for (i, t) in block.times.iter().enumerate() {
                seen.values.insert((name.clone(), *t), block.values.get(i));
            }
        }
    }
    seen
}

/// All files of a store, but those that SQLite makes anew.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in [folder.to_owned(), folder.join("log")] {
        let entries = std::fs::read_dir(place).into_iter().flatten();
        found.extend(entries.map(|e| e.unwrap().path()).filter(|p| p.is_file()));
    }
    found.retain(|p| !p.ends_with("store.sqlite-shm"));
    found.sort();
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("log")).unwrap();
    for file in files(from) {
        std::fs::copy(&file, to.join(file.strip_prefix(from).unwrap())).unwrap();
    }
}

impl Truth {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut truth = Self {
            bases: Vec::new(),
            older: Vec::new(),
            other: place.path().join("other"),
            current: BTreeMap::new(),
            ever: BTreeMap::new(),
            names: BTreeSet::new(),
            _place: place,
        };
        truth.make();
        truth
    }

    fn folder(&self, name: &str) -> PathBuf {
        self._place.path().join(name)
    }

    /// Five weeks of two sites: compacted, deleted, overwritten, sealed, and in the log only.
    fn make(&mut self) {
        let other = open(&self.other.clone()).unwrap();
        for site in ["c", "a", "b"] {
            other.create_bucket(site).unwrap();
            let mut lines = String::new();
            for i in 0..300 {
                lines += &format!(
                    "m,site={site},s=1 f=-7,i=-7i {}\nother,site={site} v=1 {}\n",
                    START + i * HOUR,
                    START + i
                );
            }
            other.write_lines(site, lines.as_bytes(), &WriteOptions::now()).unwrap();
        }
        other.seal().unwrap();
        other.close().unwrap();
        drop(other);

        let live = self.folder("live");
        let store = open(&live).unwrap();
        let mut dice = Dice::new(99);
        for site in ["a", "b"] {
            store.create_bucket(site).unwrap();
        }
        self.write(&store, &mut dice, 0, 14 * DAY);
        store.compact().unwrap();
        self.keep_older(&live, "older0");
        self.write(&store, &mut dice, 14 * DAY, 14 * DAY);
        // Corrections of what is compacted.
        self.write(&store, &mut dice, 3 * DAY, DAY);
        store.seal().unwrap();
        self.keep_older(&live, "older1");
        self.delete(&store, "a", "m", 5 * DAY, 9 * DAY);
        store.compact().unwrap();
        self.write(&store, &mut dice, 28 * DAY, 5 * DAY);
        store.seal().unwrap();
        // A deletion that no compaction has carried out.
        self.delete(&store, "b", "m", 20 * DAY, 22 * DAY);
        self.write(&store, &mut dice, 33 * DAY, DAY);
        // As a kill leaves it: much is in the write-ahead log.
        let killed = self.folder("killed");
        copy(&live, &killed);
        store.close().unwrap();
        drop(store);
        let closed = self.folder("closed");
        copy(&live, &closed);
        for folder in [killed, closed] {
            let chunks = chunks_of(&folder, &self._place.path().join("look"));
            self.bases.push(Base { folder, chunks });
        }
        for base in 0..self.bases.len() {
            let folder = self.folder("check");
            copy(&self.bases[base].folder, &folder);
            let store = open(&folder).unwrap();
            assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
            assert_eq!(look(&store).values, self.current, "the truth is true");
            drop(store);
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    fn keep_older(&mut self, live: &Path, name: &str) {
        let folder = self.folder(name);
        copy(live, &folder);
        self.older.push(folder);
    }

    fn write(&mut self, store: &Store, dice: &mut Dice, from: i64, length: i64) {
        for site in ["a", "b"] {
            let mut lines = String::new();
            for i in 0..length / (HOUR / 4) {
                let t = START + from + i * (HOUR / 4);
                let s = i % 2;
                let k = dice.below(1000);
                lines += &format!("m,site={site},s={s} f={}.{} {t}\n", k / 10, k % 10);
                self.know(
                    &format!("m s={s},site={site} f"),
                    t,
                    Value::Float(format!("{}.{}", k / 10, k % 10).parse().unwrap()),
                );
                if i % 3 == 0 {
                    let text = format!("w{}", k % 9);
                    lines += &format!("m,site={site},s={s} i={k}i,u={k}u,b={},t=\"{text}\" {t}\n", k > 500);
                    let series = |field: &str| format!("m s={s},site={site} {field}");
                    self.know(&series("i"), t, Value::Integer(k as i64));
                    self.know(&series("u"), t, Value::Unsigned(k));
                    self.know(&series("b"), t, Value::Boolean(k > 500));
                    self.know(&series("t"), t, Value::String(text.as_str().into()));
                }
            }
            let report = store.write_lines(site, lines.as_bytes(), &WriteOptions::now()).unwrap();
            assert_eq!(report.rejected_count, 0);
        }
    }

    fn know(&mut self, series: &str, time: i64, value: Value) {
        self.names.insert(series.to_owned());
        self.ever.entry((series.to_owned(), time)).or_default().push(value.clone());
        self.current.insert((series.to_owned(), time), value);
    }

    fn delete(&mut self, store: &Store, site: &str, measurement: &str, from: i64, to: i64) {
        let (from, to) = (START + from, START + to);
        let range = TimeRange::new(Timestamp::from_nanos(from), Timestamp::from_nanos(to));
        store.delete(&Selector::bucket(site).measurement(measurement), range).unwrap();
        let tag = format!("site={site}");
        self.current.retain(|k, _| !(k.0.contains(&tag) && (from..to).contains(&k.1)));
    }

    pub(crate) fn base(&self, case: u64) -> &Path {
        &self.bases[case as usize % self.bases.len()].folder
    }

    pub(crate) fn older(&self, dice: &mut Dice) -> &Path {
        &self.older[dice.below(self.older.len() as u64) as usize]
    }

    /// A segment of the other store.
    pub(crate) fn other_segment(&self) -> String {
        let segment =
            files(&self.other).into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")).unwrap();
        segment.strip_prefix(&self.other).unwrap().display().to_string()
    }

    /// Whether a series is one of this store.
    pub(crate) fn knows(&self, series: &str) -> bool {
        self.names.contains(series)
    }

    pub(crate) fn judge(&self, key: &Key, value: &Value) -> Is {
        if self.current.get(key) == Some(value) {
            Is::Current
        } else if self.ever.get(key).is_some_and(|all| all.contains(value)) {
            Is::Old
        } else if [Value::Float(-7.0), Value::Integer(-7)].contains(value) {
            Is::Others
        } else {
            Is::Never
        }
    }

    /// How many readings are not shown.
    pub(crate) fn missing(&self, seen: &Seen) -> usize {
        self.current.keys().filter(|k| !seen.values.contains_key(k)).count()
    }

    /// Readings that are not shown although every chunk they may be in is whole.
    pub(crate) fn intact(&self, base: &Path, hurt: &Path, seen: &Seen) -> Vec<Key> {
        let lost: Vec<&Key> = self.current.keys().filter(|k| !seen.values.contains_key(k)).collect();
        if lost.is_empty() {
            return Vec::new();
        }
        let base = self.bases.iter().find(|b| b.folder == base).unwrap();
        let read = |root: &Path, file: &str| std::fs::read(root.join(file)).unwrap_or_default();
        let names = ["store.sqlite", "store.sqlite-wal"];
        let now: Vec<Vec<u8>> = names.iter().map(|n| read(hurt, n)).collect();
        let then: Vec<Vec<u8>> = names.iter().map(|n| read(&base.folder, n)).collect();
        let is_whole = |chunk: &Chunk| {
            chunk.pieces.iter().all(|p| {
                let i = usize::from(p.file == names[1]);
                now[i].get(p.at..p.at + p.bytes) == then[i].get(p.at..p.at + p.bytes)
            })
        };
        let whole: Vec<bool> = base.chunks.iter().map(is_whole).collect();
        let bad = |key: &&&Key| {
            let covers = |c: &Chunk| c.series == key.0 && c.t0 <= key.1 && key.1 <= c.t1;
            let mut chunks = base.chunks.iter().zip(&whole).filter(|(c, _)| covers(c)).peekable();
            chunks.peek().is_some() && chunks.all(|(_, whole)| *whole)
        };
        lost.iter().filter(bad).map(|k| (*k).clone()).collect()
    }
}

/// The chunks of a folder, found by way of SQLite, and where in its files their bytes lie.
fn chunks_of(folder: &Path, copy_to: &Path) -> Vec<Chunk> {
    copy(folder, copy_to);
    let db = rusqlite::Connection::open(copy_to.join("store.sqlite")).unwrap();
    let files =
        ["store.sqlite-wal", "store.sqlite"].map(|n| (n, std::fs::read(folder.join(n)).unwrap_or_default()));
    let mut statement = db
        .prepare(
            "SELECT s.measurement, s.tags, s.field, c.t0, c.t1, substr(p.bytes, c.offset + 1, c.length)
             FROM chunk c JOIN series s ON s.id = c.series JOIN pack p ON p.id = c.pack",
        )
        .unwrap();
    let row = |r: &rusqlite::Row<'_>| -> rusqlite::Result<Chunk> {
        let tags: Vec<u8> = r.get(1)?;
        let tags = String::from_utf8(tags).unwrap();
        let parts: Vec<&str> = tags.split_terminator('\0').collect();
        let tags: Vec<String> = parts.chunks(2).map(|p| format!("{}={}", p[0], p[1])).collect();
        let series = format!("{} {} {}", r.get::<_, String>(0)?, tags.join(","), r.get::<_, String>(2)?);
        let bytes: Vec<u8> = r.get(5)?;
        Ok(Chunk { series, t0: r.get(3)?, t1: r.get(4)?, pieces: pieces(&files, &bytes) })
    };
    let chunks = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    drop(statement);
    drop(db);
    std::fs::remove_dir_all(copy_to).unwrap();
    chunks
}

/// The places of the pieces of some bytes: each as long as it can be.
fn pieces(files: &[(&'static str, Vec<u8>); 2], mut bytes: &[u8]) -> Vec<Piece> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let front = &bytes[..bytes.len().min(24)];
        let mut best: Option<Piece> = None;
        for (file, content) in files {
            let finder = content.windows(front.len()).enumerate().filter(|(_, w)| *w == front);
            for (at, _) in finder {
                let same = content[at..].iter().zip(bytes).take_while(|(a, b)| a == b).count();
                if best.as_ref().is_none_or(|b| b.bytes < same) {
                    best = Some(Piece { file, at, bytes: same });
                }
            }
        }
        // Fewer bytes than are looked for at the end of a page: they go with what is before them.
        let Some(piece) = best else {
            bytes = &bytes[1..];
            continue;
        };
        bytes = &bytes[piece.bytes..];
        // The page says where it goes on.
        found.push(Piece { at: piece.at.saturating_sub(4), bytes: piece.bytes + 8, ..piece });
    }
    found
}

//! The pages of a store file and of its write-ahead log as they lie on the disk, without SQLite: each page may have
//! several images, of which one is what SQLite would show. It knows nothing of what a page holds. Only reads.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Page size of every store file: what is believed when no header says another.
const PAGE_BYTES: usize = 16_384;
/// Length of the headers of a write-ahead log and of its frames.
const WAL_HEADER_BYTES: u64 = 32;
const WAL_FRAME_BYTES: u64 = 24;

/// One image of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Image {
    /// The page with this number, in the file.
    File(u32),
    /// The page in the frame with this index, in the write-ahead log.
    Wal(usize),
}

/// A frame of the write-ahead log.
#[derive(Clone, Copy, Debug)]
struct WalFrame {
    page: u32,
    /// Pages of the file after the transaction that ends here; 0: it does not end here.
    commit: u32,
    salts: [u8; 8],
    /// Its checksum continues from the one before it.
    good: bool,
}

/// All pages of a store file.
#[derive(Debug)]
pub(super) struct Pages {
    file: Option<File>,
    wal: Option<File>,
    page_bytes: usize,
    in_file: u32,
    frames: Vec<WalFrame>,
    /// The frame that SQLite would show for a page.
    current: HashMap<u32, usize>,
    /// What is wrong with the write-ahead log: then it is not known which image of a page is the newest.
    pub(super) doubt: Option<String>,
}

impl Pages {
    /// # Errors
    /// When a file that is there cannot be opened or its front cannot be read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open_if_there(path)?;
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let wal = open_if_there(&PathBuf::from(name))?;
        let mut front = [0; 100];
        if let Some(file) = &file {
            read_what_is_there(file, &mut front, 0)?;
        }
        let mut wal_front = [0; WAL_HEADER_BYTES as usize];
        if let Some(wal) = &wal {
            read_what_is_there(wal, &mut wal_front, 0)?;
        }
        let page_bytes = page_bytes(&front, &wal_front);
        let length = file.as_ref().map_or(Ok(0), |f| f.metadata().map(|m| m.len()))?;
        let in_file = u32::try_from(length.div_ceil(page_bytes as u64)).unwrap_or(u32::MAX);
        let mut pages =
            Self { file, wal, page_bytes, in_file, frames: Vec::new(), current: HashMap::new(), doubt: None };
        pages.read_wal(&wal_front)?;
        Ok(pages)
    }

    fn read_wal(&mut self, front: &[u8; WAL_HEADER_BYTES as usize]) -> io::Result<()> {
        let Some(wal) = &self.wal else { return Ok(()) };
        let step = WAL_FRAME_BYTES + self.page_bytes as u64;
        let length = wal.metadata()?.len();
        let whole = length.saturating_sub(WAL_HEADER_BYTES) / step;
        let big_endian = front[3] & 1 == 1;
        let good_header =
            front[..3] == [0x37, 0x7f, 0x06] && sums(&front[..24], (0, 0), big_endian) == sums_at(front, 24);
        let mut before = sums_at(front, 24);
        let mut frame = vec![0; step as usize];
        for i in 0..whole {
            frame.fill(0);
            let read = read_what_is_there(wal, &mut frame, WAL_HEADER_BYTES + i * step);
            let (header, page) = frame.split_at(WAL_FRAME_BYTES as usize);
            let expected = sums(page, sums(&header[..8], before, big_endian), big_endian);
            before = sums_at(header, 16);
            let salts = header[8..16].try_into().unwrap_or_default();
            let good = read.is_ok() && expected == before;
            self.frames.push(WalFrame { page: u32_at(header, 0), commit: u32_at(header, 4), salts, good });
        }
        if self.frames.is_empty() {
            if length > WAL_HEADER_BYTES || (length > 0 && !good_header) {
                self.doubt = Some("its write-ahead log is cut or has a damaged header".into());
            }
            return Ok(());
        }
        let salts =
            if good_header { front[16..24].try_into().unwrap_or_default() } else { self.frames[0].salts };
        let last = self.frames.iter().rposition(|f| f.salts == salts && f.good && f.commit > 0);
        // Frames of an earlier round of the log follow those of this one.
        let round = self.frames.iter().rposition(|f| f.salts == salts).map_or(0, |i| i + 1);
        let bad = self.frames[..round].iter().filter(|f| f.salts != salts || !f.good).count();
        if !good_header {
            self.doubt = Some("its write-ahead log has a damaged header".into());
        } else if bad > 0 {
            self.doubt = Some(format!("{bad} pages in its write-ahead log are damaged"));
        } else if !(length - WAL_HEADER_BYTES).is_multiple_of(step) {
            self.doubt = Some("its write-ahead log is cut".into());
        } else if last.is_none() {
            self.doubt = Some("its write-ahead log has no whole transaction".into());
        }
        let Some(last) = last else { return Ok(()) };
        let frames = self.frames.iter().enumerate().take(last + 1);
        self.current.extend(frames.filter(|(_, f)| f.salts == salts && f.good).map(|(i, f)| (f.page, i)));
        Ok(())
    }

    /// The highest number of a page.
    pub(super) fn last(&self) -> u32 {
        self.current.keys().copied().max().unwrap_or(0).max(self.in_file)
    }

    /// The image of a page that SQLite would show.
    pub(super) fn shown(&self, page: u32) -> Option<Image> {
        match self.current.get(&page) {
            Some(&frame) => Some(Image::Wal(frame)),
            None => (1..=self.in_file).contains(&page).then_some(Image::File(page)),
        }
    }

    /// All images: those that SQLite would show first, then the others, newest first.
    pub(super) fn images(&self) -> impl Iterator<Item = Image> {
        let shown = (1..=self.last()).filter_map(|page| self.shown(page));
        let is_shown = |frame: usize| self.current.get(&self.frames[frame].page) == Some(&frame);
        let wal = (0..self.frames.len()).rev().filter(move |&f| !is_shown(f)).map(Image::Wal);
        let file = (1..=self.in_file).filter(|page| self.current.contains_key(page)).map(Image::File);
        shown.chain(wal).chain(file)
    }

    /// The number that an image says its page has.
    pub(super) fn number(&self, image: Image) -> u32 {
        match image {
            Image::File(page) => page,
            Image::Wal(frame) => self.frames[frame].page,
        }
    }

    /// The newest image of a page in the write-ahead log up to an index, or the one in the file.
    pub(super) fn image_as_of(&self, page: u32, frame: usize) -> Option<Image> {
        let upto = &self.frames[..=frame.min(self.frames.len().saturating_sub(1))];
        match upto.iter().rposition(|f| f.page == page) {
            Some(frame) => Some(Image::Wal(frame)),
            None => (1..=self.in_file).contains(&page).then_some(Image::File(page)),
        }
    }

    /// The bytes of an image; what cannot be read is zeros.
    pub(super) fn read(&self, image: Image) -> Vec<u8> {
        let mut bytes = vec![0; self.page_bytes];
        let (file, at) = match image {
            Image::File(page) => (&self.file, u64::from(page - 1) * self.page_bytes as u64),
            Image::Wal(frame) => {
                let step = WAL_FRAME_BYTES + self.page_bytes as u64;
                (&self.wal, WAL_HEADER_BYTES + frame as u64 * step + WAL_FRAME_BYTES)
            }
        };
        if let Some(file) = file {
            // A sector that cannot be read costs that sector.
            if read_what_is_there(file, &mut bytes, at).is_err() {
                for (i, sector) in bytes.chunks_mut(4096).enumerate() {
                    sector.fill(0);
                    let _zeros = read_what_is_there(file, sector, at + i as u64 * 4096);
                }
            }
        }
        bytes
    }
}

fn page_bytes(front: &[u8], wal: &[u8]) -> usize {
    let of_file = match u16::from_be_bytes([front[16], front[17]]) {
        1 => 65_536,
        n => usize::from(n),
    };
    let of_wal = u32_at(wal, 8) as usize;
    let plausible = |n: &usize| n.is_power_of_two() && (512..=65_536).contains(n);
    let header_is_ours = front.starts_with(b"SQLite format 3\0");
    let of_file = Some(of_file).filter(|_| header_is_ours).filter(plausible);
    let wal_is_ours = wal[..3] == [0x37, 0x7f, 0x06];
    of_file.or(Some(of_wal).filter(|_| wal_is_ours).filter(plausible)).unwrap_or(PAGE_BYTES)
}

/// The checksums of a write-ahead log, continued from those before.
fn sums(bytes: &[u8], (mut a, mut b): (u32, u32), big_endian: bool) -> (u32, u32) {
    let word = |w: &[u8]| {
        let w = [w[0], w[1], w[2], w[3]];
        if big_endian { u32::from_be_bytes(w) } else { u32::from_le_bytes(w) }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}

fn sums_at(bytes: &[u8], at: usize) -> (u32, u32) {
    (u32_at(bytes, at), u32_at(bytes, at + 4))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_what_is_there(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => break,
            Ok(n) => {
                bytes = &mut bytes[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

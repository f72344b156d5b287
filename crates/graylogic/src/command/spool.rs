//! `graylogic spool`: what waits for a server. Looking at it works while a client holds it and writes nothing; putting
//! lines back and removing them needs the spool for itself.

use crate::cli::{Purged, Spool as Options, SpoolCommand, SpoolPlace};
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_durable::{
    Checked, Damage, DeadLetter, Holder, Inspection, Lane, LaneOptions, LaneStats, Next, RealDisk,
    SegmentInfo, Spool, WhenFull, holder, lanes, listed_as,
};
use graylogic_influxdb::Config;
use graylogic_line::Timestamp;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// So much is read at once.
const READ_LINES: usize = 10_000;
const READ_BYTES: usize = 1 << 20;

pub(crate) fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let spool = Place::find(&options.place)?;
    match &options.command {
        SpoolCommand::Ls => ls(&spool, json),
        SpoolCommand::Stat { lane } => stat(&spool, lane.as_deref(), json),
        SpoolCommand::Verify { lane, settle } => verify(&spool, lane.as_deref(), *settle, json),
        SpoolCommand::Cat { lane, from, limit, all } => {
            cat(&spool.look(lane)?, *from, limit.unwrap_or(u64::MAX), *all, json)
        }
        SpoolCommand::Export { lane, to } => export(&spool.look(lane)?, to, json),
        SpoolCommand::Dead { lane, limit } => dead(&spool.look(lane)?, *limit, json),
        SpoolCommand::Retry { lane, letter } => retry(&spool.hold(lane)?, letter, json),
        SpoolCommand::Purge { lane, what, yes: _ } => purge(&spool.hold(lane)?, *what, json),
    }
}

/// A spool that is there, and its lanes.
struct Place {
    folder: PathBuf,
    lanes: Vec<String>,
}

impl Place {
    fn find(place: &SpoolPlace) -> Result<Self, Failure> {
        let folder = match &place.spool {
            Some(folder) => folder.clone(),
            None => {
                let config = match &place.config {
                    Some(file) => Config::from_file(file)?,
                    None => Config::from_yaml("")?,
                };
                let off = "the configuration keeps what waits in memory only (spool is off); name a folder with --spool";
                config.spool_folder().ok_or_else(|| Failure::new(off))?.to_owned()
            }
        };
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Failure::new(format!("there is no spool in {folder}; name its folder with --spool")));
        }
        let lanes = lanes(&RealDisk, &folder)?;
        Ok(Self { folder, lanes })
    }

    /// The lane with a name, or all.
    fn chosen<'a>(&'a self, lane: Option<&'a str>) -> Result<Vec<&'a str>, Failure> {
        match lane {
            Some(lane) => self.known(lane).map(|()| vec![lane]),
            None => Ok(self.lanes.iter().map(String::as_str).collect()),
        }
    }

    /// A bucket whose name was too long for a folder is listed under a shorter one, and found under both.
    fn known(&self, lane: &str) -> Result<(), Failure> {
        if self.lanes.contains(&listed_as(lane)) {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(Failure::new(match &self.lanes[..] {
            [] => format!("there is no lane {lane:?} in the spool {folder}: it has no lanes"),
            names => {
                let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
                format!("there is no lane {lane:?} in the spool {folder}; there are {}", names.join(", "))
            }
        }))
    }

    /// A lane to look at.
    fn look(&self, lane: &str) -> Result<Inspection, Failure> {
        self.known(lane)?;
        Ok(Inspection::open(Arc::new(RealDisk), &self.folder, lane)?)
    }

    /// A lane for this process alone.
    fn hold(&self, lane: &str) -> Result<Lane, Failure> {
        self.known(lane)?;
        let spool = Spool::open(Arc::new(RealDisk), &self.folder).map_err(|error| {
            if !error.is_locked() {
                return Failure::from(error);
            }
            let who = match holder(&self.folder) {
                Holder::Process(Some(number)) => format!("process {number}"),
                _ => "another process".to_owned(),
            };
            let folder = self.folder.display();
            Failure::new(format!("{who} holds the spool {folder}: stop it first, then run this again"))
        })?;
        // What is put back makes nothing else go.
        let options = LaneOptions::default().bytes_max(u64::MAX).keep_free(0).when_full(WhenFull::DropNewest);
        let (lane, recovery) = spool.lane(lane, options)?;
        recovery.damage.iter().for_each(remark);
        recovery.cursor.iter().for_each(remark);
        Ok(lane)
    }
}

// ---- looking ----------------------------------------------------------------------------------------------------

fn ls(spool: &Place, json: bool) -> Result<ExitCode, Failure> {
    let held = holder(&spool.folder);
    let mut seen = Vec::new();
    for lane in &spool.lanes {
        seen.push((lane, spool.look(lane)?));
    }
    if json {
        let of = |(name, lane): &(&String, Inspection)| {
            let stats = lane.stats();
            json!({
                "lane": name,
                "waiting": stats.waiting,
                "dead_letters": lane.dead_count(),
                "bytes": stats.bytes,
                "oldest_age_s": stats.oldest_age.map(|t| t.as_secs_f64()),
                "cursor": lane.cursor(),
            })
        };
        let process = match &held {
            Holder::Process(number) => json!(number),
            _ => Value::Null,
        };
        answer_json(&json!({
            "spool": spool.folder.display().to_string(),
            "held": match &held {
                Holder::Nobody => json!(false),
                Holder::Process(_) => json!(true),
                _ => Value::Null,
            },
            "process": process,
            "lanes": seen.iter().map(of).collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    if seen.is_empty() {
        answer("no lanes");
    } else {
        let row = |(name, lane): &(&String, Inspection)| {
            let stats = lane.stats();
            vec![
                shown(name),
                text::count(stats.waiting),
                text::count(lane.dead_count()),
                text::bytes(stats.bytes),
                stats.oldest_age.map_or_else(String::new, |t| age(t.as_secs())),
                if lane.cursor().is_none() { "good" } else { "damaged" }.to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = seen.iter().map(row).collect();
        answer(text::table(&["lane", "waiting", "dead", "on disk", "oldest", "cursor"], &rows).trim_end());
    }
    answer(match held {
        Holder::Nobody => "nobody holds the spool".to_owned(),
        Holder::Process(Some(number)) => format!("process {number} holds the spool"),
        Holder::Process(None) => "a process holds the spool".to_owned(),
        Holder::Unknown(why) => format!("who holds the spool cannot be asked: {why}"),
        _ => String::new(),
    });
    Ok(ExitCode::SUCCESS)
}

fn stat(spool: &Place, lane: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
    let mut answers = Vec::new();
    for name in spool.chosen(lane)? {
        let seen = spool.look(name)?;
        let checked = seen.check(|_| {})?;
        if json {
            answers.push(stat_json(name, &seen, &checked)?);
        } else {
            answer(stat_text(name, &seen, &checked)?.trim_end());
        }
    }
    if json {
        answer_json(&json!({ "lanes": answers }));
    }
    Ok(ExitCode::SUCCESS)
}

fn stat_json(name: &str, lane: &Inspection, checked: &Checked) -> Result<Value, Failure> {
    let LaneStats { accepted, delivered, dead, dropped, damaged, waiting, bytes, first, next, .. } =
        lane.stats();
    let segment = |s: &SegmentInfo| {
        json!({
            "segment": segment_name(s),
            "first": s.first_sequence,
            "last": s.end_sequence.saturating_sub(1),
            "bytes": s.bytes,
            "created": created(s).map(|t| t.to_string()),
        })
    };
    let kept = lane.kept()?;
    Ok(json!({
        "lane": name,
        "accepted": accepted,
        "delivered": delivered,
        "dead": dead,
        "dropped": dropped,
        "damaged": damaged,
        "waiting": waiting,
        "waiting_damaged": checked.lost_waiting,
        "lost": checked.lost + checked.noted_lost,
        "unsettled": lane.unsettled().iter().map(|n| n.text.as_str()).collect::<Vec<_>>(),
        "first_waiting": first,
        "next": next,
        "bytes": bytes,
        "line_bytes": checked.line_bytes,
        "compression": ratio(checked),
        "dead_letters": lane.dead_count(),
        "cursor": lane.cursor(),
        "damaged_files": kept.len(),
        "damaged_bytes": kept.iter().map(|k| k.bytes).sum::<u64>(),
        "segments": lane.segments().iter().map(segment).collect::<Vec<_>>(),
    }))
}

fn stat_text(name: &str, lane: &Inspection, checked: &Checked) -> Result<String, Failure> {
    let stats = lane.stats();
    let count = |n: u64| text::count(n);
    let mut lines = vec![
        format!("lane {}", shown(name)),
        format!(
            "  {} accepted = {} delivered + {} dead + {} dropped + {} damaged + {} waiting",
            count(stats.accepted),
            count(stats.delivered),
            count(stats.dead),
            count(stats.dropped),
            count(stats.damaged),
            count(stats.waiting),
        ),
        format!("  {} dead letters", count(lane.dead_count())),
        format!("  cursor: {}", lane.cursor().unwrap_or("good")),
    ];
    if checked.lost_waiting > 0 {
        lines.push(format!("  of the waiting lines {} are lost to damage", count(checked.lost_waiting)));
    }
    let lost = checked.lost + checked.noted_lost;
    if lost > 0 || checked.noted > 0 {
        lines.push(format!("  {} lines and letters are lost to damage that is not settled", count(lost)));
        lines.extend(lane.unsettled().iter().map(|note| format!("    {note}")));
    }
    let kept = lane.kept()?;
    if !kept.is_empty() {
        let bytes = text::bytes(kept.iter().map(|k| k.bytes).sum());
        lines.push(format!("  {} files with {bytes} that were found damaged are kept", kept.len()));
    }
    if let Some(ratio) = ratio(checked) {
        let (plain, stored) = (text::bytes(checked.line_bytes), text::bytes(checked.stored_bytes));
        lines.push(format!("  {plain} of lines in {stored} on disk: {ratio:.1} to 1"));
    }
    let row = |s: &SegmentInfo| {
        vec![
            segment_name(s),
            count(s.first_sequence),
            if s.end_sequence > s.first_sequence { count(s.end_sequence - 1) } else { String::new() },
            text::bytes(s.bytes),
            created(s).map_or_else(|| "unknown".to_owned(), text::local),
        ]
    };
    let rows: Vec<Vec<String>> = lane.segments().iter().map(row).collect();
    if !rows.is_empty() {
        lines.push(text::table(&["segment", "first", "last", "bytes", "created"], &rows));
    }
    Ok(lines.join("\n"))
}

fn verify(spool: &Place, lane: Option<&str>, settle: bool, json: bool) -> Result<ExitCode, Failure> {
    let mut whole = true;
    let mut answers = Vec::new();
    for name in spool.chosen(lane)? {
        let seen = spool.look(name)?;
        let mut places = Vec::new();
        let checked = seen.check(|damage| {
            if json {
                places.push(damage_json(damage));
            } else {
                answer(format_args!("lane {}: {}", shown(name), damage_text(damage)));
            }
        })?;
        let notes = seen.unsettled();
        let settled = if settle { seen.settle()? } else { 0 };
        whole &= checked.places == 0 && seen.cursor().is_none() && (settle || notes.is_empty());
        let lost = checked.lost + checked.noted_lost;
        if json {
            answers.push(json!({
                "lane": name,
                "segments": checked.segments,
                "bytes": checked.bytes,
                "frames": checked.frames,
                "lines": checked.lines,
                "dead_letters": checked.letters,
                "cursor": seen.cursor(),
                "lost": lost,
                "damage": places,
                "unsettled": notes.iter().map(|n| n.text.as_str()).collect::<Vec<_>>(),
                "settled": settled,
            }));
            continue;
        }
        if let Some(cursor) = seen.cursor() {
            answer(format_args!("lane {}: {cursor}", shown(name)));
        }
        answer(format_args!(
            "lane {}: {} segments with {} lines and {} dead letters, {}, read: {}",
            shown(name),
            text::count(checked.segments as u64),
            text::count(checked.lines),
            text::count(checked.letters),
            text::bytes(checked.bytes),
            match checked.places {
                0 if lost > 0 => format!("{} lost", text::count(lost)),
                0 if seen.cursor().is_none() => "all as they were written".to_owned(),
                0 => "the cursor is not as it was left".to_owned(),
                1 => format!("1 place is damaged, {} lost", text::count(lost)),
                n => format!("{} places are damaged, {} lost", text::count(n), text::count(lost)),
            }
        ));
        for note in notes.iter().filter(|_| !settle) {
            answer(format_args!("lane {}: found earlier: {note}", shown(name)));
        }
        if !notes.is_empty() {
            answer(match settled {
                0 => format!("lane {}: verify --settle ends the report of damage found earlier", shown(name)),
                n => format!("lane {}: {} damage notes are settled", shown(name), text::count(n)),
            });
        }
    }
    if json {
        answer_json(&json!({ "whole": whole, "lanes": answers }));
    } else if spool.lanes.is_empty() {
        answer("no lanes");
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn damage_json(damage: &Damage) -> Value {
    let lost = damage.lost_count();
    json!({
        "segment": damage.segment,
        "offset": damage.offset,
        "bytes": damage.bytes,
        "lost": lost,
        "lost_from": (lost > 0).then_some(damage.lost.start),
        "lost_to": (lost > 0).then(|| damage.lost.end - 1),
    })
}

fn damage_text(damage: &Damage) -> String {
    let Damage { segment, offset, bytes, lost, .. } = damage;
    let what = match damage.lost_count() {
        0 => "nothing that was whole is lost".to_owned(),
        1 => format!("1 lost, number {}", lost.start),
        n => format!("{n} lost, numbers {} to {}", lost.start, lost.end - 1),
    };
    match bytes {
        0 => format!("{segment}: something is missing at {offset}; {what}"),
        _ => format!("{segment}: {bytes} bytes at {offset} are not what was written; {what}"),
    }
}

/// What reading lines came to.
#[derive(Default)]
struct Carried {
    lines: u64,
    bytes: u64,
    damaged: u64,
}

/// Gives lines to `put` one by one with their numbers, and says on standard error what is lost.
fn carry(
    lane: &Inspection,
    from: u64,
    limit: u64,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<Carried, Failure> {
    let mut carried = Carried::default();
    let mut reader = lane.reader(from);
    while carried.lines < limit {
        let most = usize::try_from(limit - carried.lines).unwrap_or(usize::MAX).min(READ_LINES);
        match reader.next(most, READ_BYTES)? {
            Next::Lines(batch) => {
                for i in 0..batch.len() {
                    put(batch.first + i as u64, batch.line(i))?;
                }
                carried.lines += batch.len() as u64;
                carried.bytes += batch.bytes.len() as u64;
            }
            Next::Lost(damage) => {
                carried.damaged += damage.lost_count();
                remark(damage_text(&damage));
            }
            _ => break,
        }
    }
    Ok(carried)
}

fn cat(lane: &Inspection, from: u64, limit: u64, all: bool, json: bool) -> Result<ExitCode, Failure> {
    let first = if all { lane.oldest() } else { lane.stats().first };
    let mut out = BufWriter::new(io::stdout().lock());
    let is_for_people = io::stdout().is_terminal();
    let mut closed = false;
    let mut put = |number: u64, line: &[u8]| {
        let put = if json {
            let line = String::from_utf8_lossy(line);
            let line = json!({ "number": number, "line": line.strip_suffix('\n').unwrap_or(&line) });
            writeln!(out, "{}", text::printable_json(&line.to_string()))
        } else if is_for_people {
            out.write_all(text::printable(&String::from_utf8_lossy(line)).as_bytes())
        } else {
            out.write_all(line)
        };
        put.map_err(|e| {
            closed = e.kind() == io::ErrorKind::BrokenPipe;
            Failure::because("write lines to standard output", e)
        })
    };
    let carried = carry(lane, from.max(first), limit, &mut put);
    let flushed = out.flush();
    let pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if closed || flushed.as_ref().is_err_and(pipe) {
        // Whoever closed the pipe has seen enough.
        return Ok(ExitCode::SUCCESS);
    }
    let carried = carried?;
    flushed.map_err(|e| Failure::because("write lines to standard output", e))?;
    Ok(if carried.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_REFUSED) })
}

fn export(lane: &Inspection, to: &Path, json: bool) -> Result<ExitCode, Failure> {
    let writing = |e: io::Error| Failure::because(format_args!("write {}", to.display()), e);
    if to.symlink_metadata().is_ok() {
        return Err(Failure::new(format!("{} is there already; name another file", to.display())));
    }
    let Some(name) = to.file_name() else {
        return Err(Failure::new(format!("{} is no name of a file", to.display())));
    };
    let folder = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unnamed = name.to_owned();
    unnamed.push(format!(".{}.new", std::process::id()));
    let unnamed = folder.join(unnamed);
    let done = (|| {
        let file = OpenOptions::new().write(true).create_new(true).open(&unnamed).map_err(writing)?;
        let (carried, file) = if to.extension().is_some_and(|e| e == "gz") {
            let mut out = flate2::write::GzEncoder::new(BufWriter::new(file), flate2::Compression::default());
            let carried =
                carry(lane, lane.stats().first, u64::MAX, |_, line| out.write_all(line).map_err(writing))?;
            (carried, out.finish().map_err(writing)?)
        } else {
            let mut out = BufWriter::new(file);
            let carried =
                carry(lane, lane.stats().first, u64::MAX, |_, line| out.write_all(line).map_err(writing))?;
            (carried, out)
        };
        let file = file.into_inner().map_err(|e| writing(e.into_error()))?;
        file.sync_all().map_err(writing)?;
        // A link fails where a rename would replace what somebody else made meanwhile.
        std::fs::hard_link(&unnamed, to)
            .or_else(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => Err(e),
                // A file system without links.
                _ => std::fs::rename(&unnamed, to),
            })
            .map_err(writing)?;
        Ok::<Carried, Failure>(carried)
    })();
    // Its other name, or what was begun.
    let _gone_when_it_was_renamed = std::fs::remove_file(&unnamed);
    let carried = done?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(writing)?;
    let Carried { lines, bytes, damaged } = carried;
    if json {
        answer_json(
            &json!({ "file": to.display().to_string(), "lines": lines, "bytes": bytes, "damaged": damaged }),
        );
    } else {
        let (lines, damaged) = (text::count(lines), text::count(damaged));
        answer(format_args!("{lines} lines written to {}, {damaged} lost to damage", to.display()));
    }
    Ok(if carried.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_REFUSED) })
}

fn dead(lane: &Inspection, limit: usize, json: bool) -> Result<ExitCode, Failure> {
    let mut letters = Vec::new();
    let mut more = false;
    for item in lane.dead() {
        match item {
            Ok(_) if letters.len() == limit => {
                more = true;
                break;
            }
            Ok(letter) => letters.push(letter),
            Err(damage) => remark(damage_text(&damage)),
        }
    }
    if json {
        let of = |l: &DeadLetter| {
            let line = String::from_utf8_lossy(&l.line);
            json!({
                "letter": l.letter,
                "number": l.number,
                "time": Timestamp::from_nanos(l.time).to_string(),
                "reason": l.reason,
                "line": line.strip_suffix('\n').unwrap_or(&line),
            })
        };
        answer_json(&json!({ "letters": letters.iter().map(of).collect::<Vec<_>>(), "truncated": more }));
    } else {
        for l in &letters {
            let (time, reason) = (text::local(Timestamp::from_nanos(l.time)), shown(&l.reason));
            let line = String::from_utf8_lossy(&l.line);
            let line = shown(line.strip_suffix('\n').unwrap_or(&line));
            answer(format_args!("letter {}, line {}, {time}: {reason}\n  {line}", l.letter, l.number));
        }
        if letters.is_empty() {
            answer("no dead letters");
        }
    }
    if more {
        remark(format_args!("only the first {limit} letters are shown; ask for more with --limit"));
    }
    Ok(ExitCode::SUCCESS)
}

// ---- changing ---------------------------------------------------------------------------------------------------

fn retry(lane: &Lane, letters: &[u64], json: bool) -> Result<ExitCode, Failure> {
    let retried = lane.retry_dead((!letters.is_empty()).then_some(letters))?;
    let waiting = lane.stats().waiting;
    if json {
        answer_json(&json!({ "retried": retried.letters, "left": retried.left, "waiting": waiting }));
    } else {
        answer(format_args!(
            "{} dead letters put back, {} left; {} lines wait",
            text::count(retried.letters),
            text::count(retried.left),
            text::count(waiting)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn purge(lane: &Lane, what: Purged, json: bool) -> Result<ExitCode, Failure> {
    let (name, count, said) = if what.dead {
        let letters = lane.purge_dead()?;
        ("dead_letters", letters, format!("{} dead letters removed", text::count(letters)))
    } else if what.waiting {
        let lines = lane.purge_waiting()?;
        let said = format!("{} waiting lines removed; they count as dropped", text::count(lines));
        ("waiting", lines, said)
    } else {
        let files = lane.purge_damaged()?;
        let bytes = text::bytes(files.iter().map(|f| f.bytes).sum());
        ("damaged_files", files.len() as u64, format!("{} files with {bytes} removed", files.len()))
    };
    if json {
        answer_json(&json!({ "removed": { name: count } }));
    } else {
        answer(said);
    }
    Ok(ExitCode::SUCCESS)
}

// ---- words ------------------------------------------------------------------------------------------------------

/// A name or a reason on one line: what would move the cursor of a terminal is written as an escape.
fn shown(name: &str) -> String {
    if name.is_empty() {
        return "\"\"".to_owned();
    }
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    name.chars().map(plain).collect()
}

fn segment_name(segment: &SegmentInfo) -> String {
    format!("{:016x}.seg", segment.number)
}

fn created(segment: &SegmentInfo) -> Option<Timestamp> {
    (segment.created != i64::MAX).then(|| Timestamp::from_nanos(segment.created))
}

/// Bytes of lines for each byte on the disk.
fn ratio(checked: &Checked) -> Option<f64> {
    (checked.line_bytes > 0 && checked.stored_bytes > 0)
        .then(|| checked.line_bytes as f64 / checked.stored_bytes as f64)
}

/// An age in its two largest units.
fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m{}s", seconds % 60),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

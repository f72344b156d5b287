//! `graylogic spool` as it is run, on spools made by the library: held, damaged, read-only, oddly named, empty, missing.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{DeadLine, Inspection, Lane, LaneOptions, Lines, RealDisk, Spool};
use graylogic_influxdb::{Client, Config, Level, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn graylogic(spool: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graylogic"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GRAYLOGIC_INFLUXDB_")) {
        // What the machine's environment says must not matter.
        command.env_remove(key);
    }
    command.env("TZ", "UTC").args(["spool", "--spool", spool.to_str().unwrap()]).args(arguments);
    command
}

fn run(spool: &Path, arguments: &[&str]) -> Output {
    graylogic(spool, arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(spool: &Path, arguments: &[&str]) -> Value {
    let output = run(spool, &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exit code, standard output, standard error.
fn said(spool: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = run(spool, arguments);
    let (out, err) = (text(&output.stdout).to_owned(), text(&output.stderr).to_owned());
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap(), out, err)
}

fn line(i: u64) -> Vec<u8> {
    match i % 5 {
        0 => format!("log text=\"one\ntwo {i}\" {i}\n").into_bytes(),
        _ => format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes(),
    }
}

fn lines(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.flat_map(line).collect()
}

fn append(lane: &Lane, numbers: std::ops::Range<u64>) {
    let mut batch = Lines::default();
    numbers.for_each(|i| batch.push(&line(i)));
    lane.append(&batch).unwrap();
}

/// Lines 1 to 300 in several segments, the first 20 delivered, with dead letters for 5, 6 and 7.
fn filled(spool: &Spool, name: &str) -> Lane {
    let options = LaneOptions::default().segment_bytes(3000).compression(false).keep_free(0);
    let (lane, _) = spool.lane(name, options).unwrap();
    for from in (1..300).step_by(10) {
        append(&lane, from..from + 10);
    }
    let dead: Vec<Vec<u8>> = (5..8).map(line).collect();
    let letters: Vec<DeadLine<'_>> = dead
        .iter()
        .enumerate()
        .map(|(i, line)| DeadLine {
            number: 5 + i as u64,
            time: 1_700_000_000_000_000_000,
            reason: "partial write: field type conflict",
            line,
        })
        .collect();
    lane.park(&letters).unwrap();
    lane.acknowledge(21);
    lane.sync().unwrap();
    lane.save_cursor().unwrap();
    lane
}

fn made(folder: &Path, names: &[&str]) {
    let spool = Spool::open(Arc::new(RealDisk), folder).unwrap();
    names.iter().for_each(|name| drop(filled(&spool, name)));
}

/// Every file and folder: bytes, and when it was changed.
fn everything(folder: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        found.insert(folder.clone(), (None, folder.metadata().unwrap().modified().unwrap()));
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let changed = path.metadata().unwrap().modified().unwrap();
                found.insert(path.clone(), (Some(std::fs::read(&path).unwrap()), changed));
            }
        }
    }
    found
}

fn allow_writing(folder: &Path, yes: bool) {
    for path in everything(folder).into_keys() {
        let mode = match (path.is_dir(), yes) {
            (true, true) => 0o755,
            (true, false) => 0o555,
            (false, true) => 0o644,
            (false, false) => 0o444,
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn segments(folder: &Path, lane: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join(lane)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "seg"));
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn looking_works_while_a_client_holds_the_spool_and_on_a_read_only_disk_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("spool");
    let long = "long ".repeat(100);
    let names = ["energy", "House/2 🛁", "..", "", &long];
    let spool = Spool::open(Arc::new(RealDisk), &place).unwrap();
    let lanes: Vec<Lane> = names.iter().map(|name| filled(&spool, name)).collect();
    // An append that was torn by a kill is still on the disk.
    let last = segments(&place, "energy").pop().unwrap();
    let mut torn = std::fs::read(&last).unwrap();
    torn.extend_from_slice(&[7; 77]);
    std::fs::write(&last, torn).unwrap();

    let mut holding = Some((spool, lanes));
    for held in [true, false] {
        if !held {
            holding = None;
            allow_writing(&place, false);
        }
        let before = everything(&place);
        let ls = json(&place, &["ls"]);
        assert_eq!(ls["held"], held);
        if held {
            assert_eq!(ls["process"], std::process::id());
        }
        let listed: Vec<&str> =
            ls["lanes"].as_array().unwrap().iter().map(|l| l["lane"].as_str().unwrap()).collect();
        assert_eq!(listed.len(), names.len());
        for name in listed.into_iter().chain(names) {
            let cat = run(&place, &["cat", "--", name]);
            assert!(cat.status.success(), "{name}: {}", text(&cat.stderr));
            assert_eq!(cat.stdout, lines(21..301), "{name}: byte for byte");
            let stat = json(&place, &["stat", "--", name]);
            let lane = &stat["lanes"][0];
            let of = |key: &str| lane[key].as_u64().unwrap();
            assert_eq!(
                ["accepted", "delivered", "dead", "dropped", "damaged", "waiting"].map(of),
                [300, 17, 3, 0, 0, 280]
            );
            let segments = lane["segments"].as_array().unwrap();
            assert!(segments.len() > 3 && segments.last().unwrap()["last"] == 300, "{lane}");
            assert!(lane["compression"].as_f64().unwrap() > 0.5);
            let dead = json(&place, &["dead", "--limit", "2", "--", name]);
            assert_eq!(dead["truncated"], true);
            assert_eq!(
                (&dead["letters"][1]["letter"], &dead["letters"][1]["number"]),
                (&2.into(), &6.into())
            );
            let first = dead["letters"][0]["line"].as_str().unwrap();
            assert_eq!(format!("{first}\n").into_bytes(), line(5));
        }
        for (row, name) in ls["lanes"].as_array().unwrap().iter().zip(1..) {
            assert_eq!((&row["waiting"], &row["dead_letters"]), (&280.into(), &3.into()), "lane {name}");
            assert!(row["oldest_age_s"].as_f64().unwrap() < 600.0 && row["cursor"].is_null(), "{row}");
        }
        let (code, out, _) = said(&place, &["verify"]);
        assert_eq!(code, 1, "the torn tail is told: {out}");
        assert!(out.contains("77 bytes at") && out.contains("nothing that was whole is lost"), "{out}");
        assert_eq!(out.matches("all as they were written").count(), names.len() - 1, "{out}");
        let (_, out, _) = said(&place, &["ls"]);
        assert!(
            out.contains("House/2 🛁") && out.contains(if held { "holds the spool" } else { "nobody" }),
            "{out}"
        );
        let (_, out, _) = said(&place, &["stat", "energy"]);
        let sum = "300 accepted = 17 delivered + 3 dead + 0 dropped + 0 damaged + 280 waiting";
        assert!(out.contains(sum) && out.contains(".seg"), "{out}");
        let (_, out, _) = said(&place, &["dead", "energy"]);
        assert!(out.contains("letter 1, line 5, 2023-11-14 22:13:20 UTC: partial write"), "{out}");
        for command in [vec!["retry", "energy"], vec!["purge", "energy", "--waiting", "--yes"]] {
            if held {
                let (code, _, err) = said(&place, &command);
                let process = format!("process {} holds the spool", std::process::id());
                assert!(code == 1 && err.contains(&process) && err.contains("stop it first"), "{err}");
            }
        }
        assert_eq!(everything(&place), before, "nothing was written");
    }
    drop(holding);
    allow_writing(&place, true);
}

#[test]
fn parts_of_a_lane_are_read_by_number() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &["energy"]);
    let cases: [(&[&str], std::ops::Range<u64>); 6] = [
        (&["--from", "290"], 290..301),
        (&["--from", "3"], 21..301),
        (&["--limit", "7"], 21..28),
        (&["--from", "100", "--limit", "1"], 100..101),
        (&["--limit", "0"], 0..0),
        (&["--from", "5000"], 0..0),
    ];
    for (extra, expected) in cases {
        let output = run(folder.path(), &[&["cat", "energy"], extra].concat());
        assert!(output.status.success());
        assert_eq!(output.stdout, lines(expected), "{extra:?}");
    }
    let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
    let first = spool.lane("energy", LaneOptions::default()).unwrap().0.reader(0).position();
    drop(spool);
    assert!(first <= 20);
    assert_eq!(run(folder.path(), &["cat", "energy", "--all"]).stdout, lines(first..301));
    let output = run(folder.path(), &["cat", "energy", "--json", "--from", "25", "--limit", "2"]);
    let rows: Vec<Value> = text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&rows[0]["number"], &rows[1]["number"]), (&25.into(), &26.into()));
    assert_eq!(rows[0]["line"], "log text=\"one\ntwo 25\" 25");
}

#[test]
fn damage_is_named_and_costs_only_what_it_hits() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("spool");
    made(&place, &["energy", "air"]);
    let path = &segments(&place, "energy")[2];
    let name = path.file_name().unwrap().to_str().unwrap();
    flip(path, 200);
    let seen = Inspection::open(Arc::new(RealDisk), &place, "energy").unwrap();
    let first = seen.segments()[2].first_sequence;
    let (code, out, _) = said(&place, &["verify"]);
    assert_eq!(code, 1);
    let told = format!("lane energy: {name}: ");
    let lost = format!("10 lost, numbers {first} to {}", first + 9);
    assert!(out.contains(&told) && out.contains(" bytes at 64 ") && out.contains(&lost), "{out}");
    assert!(out.contains("lane air: ") && out.contains("all as they were written"), "{out}");
    assert_eq!(said(&place, &["verify", "air"]).0, 0);
    let output = run(&place, &["verify", "energy", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let damage = &answer["lanes"][0]["damage"][0];
    assert_eq!((output.status.code(), &answer["whole"]), (Some(1), &false.into()));
    assert_eq!(
        (&damage["segment"], &damage["offset"], &damage["lost"]),
        (&name.into(), &64.into(), &10.into())
    );
    assert_eq!((&damage["lost_from"], &damage["lost_to"]), (&first.into(), &(first + 9).into()));

    let left = [lines(21..first), lines(first + 10..301)].concat();
    let output = run(&place, &["cat", "energy"]);
    assert_eq!((output.status.code(), &output.stdout), (Some(3), &left));
    assert!(text(&output.stderr).contains(&lost), "{}", text(&output.stderr));
    let to = folder.path().join("out.lp");
    let (code, out, err) = said(&place, &["export", "energy", "--to", to.to_str().unwrap()]);
    assert_eq!((code, std::fs::read(&to).unwrap()), (3, left));
    assert!(
        out.contains("270 lines") && out.contains("10 lost to damage") && err.contains(&lost),
        "{out} {err}"
    );
    let (_, out, _) = said(&place, &["stat", "energy"]);
    assert!(out.contains("of the waiting lines 10 are lost to damage"), "{out}");

    // A cursor and dead letters.
    flip(&place.join("air/cursor"), 520);
    flip(&place.join("air/dead/0000000000000001.seg"), 100);
    let (code, out, _) = said(&place, &["verify", "air"]);
    assert_eq!(code, 1);
    assert!(out.contains("cursor: 512 bytes at 512") && out.contains("dead/0000000000000001.seg: "), "{out}");
    let (_, out, err) = said(&place, &["dead", "air"]);
    assert!(
        !out.contains("letter 1,") && out.contains("letter 2,") && err.contains("number 1"),
        "{out} {err}"
    );
    // Segments that are gone are missed.
    std::fs::remove_file(&segments(&place, "air")[1]).unwrap();
    let (_, out, _) = said(&place, &["verify", "air"]);
    assert!(out.contains("something is missing"), "{out}");
}

#[test]
fn an_export_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("spool");
    made(&place, &["energy"]);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let (plain, packed) = (out.join("lines.lp"), out.join("lines.lp.gz"));
    for to in [&plain, &packed] {
        let answer = json(&place, &["export", "energy", "--to", to.to_str().unwrap()]);
        assert_eq!((&answer["lines"], &answer["damaged"]), (&280.into(), &0.into()));
        let (code, _, err) = said(&place, &["export", "energy", "--to", to.to_str().unwrap()]);
        assert!(code == 1 && err.contains("is there already; name another file"), "{err}");
    }
    assert_eq!(std::fs::read(&plain).unwrap(), lines(21..301));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&packed).unwrap()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, lines(21..301));
    let (code, _, err) = said(&place, &["export", "energy", "--to", out.join("no/x").to_str().unwrap()]);
    assert!(code == 1 && err.lines().count() == 1, "{err}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2, "nothing is left beside them");
}

#[test]
fn dead_letters_go_back_behind_what_waits_and_nothing_is_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &["energy"]);
    let place = folder.path();
    let conserved = |waiting: u64| {
        let stat = json(place, &["stat", "energy"])["lanes"][0].clone();
        let of = |key: &str| stat[key].as_u64().unwrap();
        let gone = of("delivered") + of("dead") + of("dropped") + of("damaged");
        assert_eq!((of("accepted"), of("waiting")), (gone + waiting, waiting), "{stat}");
        (of("accepted"), of("dead"), of("dropped"), of("dead_letters"))
    };
    let (code, _, err) = said(place, &["retry", "energy", "--letter", "9"]);
    assert!(code == 1 && err.contains("there is none with number 9"), "{err}");
    assert_eq!(conserved(280), (300, 3, 0, 3));
    let one = json(place, &["retry", "energy", "--letter", "2"]);
    assert_eq!((&one["retried"], &one["left"], &one["waiting"]), (&1.into(), &2.into(), &281.into()));
    assert_eq!(run(place, &["cat", "energy"]).stdout, [lines(21..301), line(6)].concat());
    assert_eq!(conserved(281), (301, 3, 0, 2));
    let (code, out, _) = said(place, &["retry", "energy"]);
    assert_eq!((code, out.as_str()), (0, "2 dead letters put back, 0 left; 283 lines wait\n"));
    assert_eq!(run(place, &["cat", "energy"]).stdout, [lines(21..301), line(6), line(5), line(7)].concat());
    assert_eq!(said(place, &["dead", "energy"]).1, "no dead letters\n");
    assert_eq!(conserved(283), (303, 3, 0, 0));
    assert_eq!(json(place, &["retry", "energy"])["retried"], 0);
    let (code, out, _) = said(place, &["purge", "energy", "--waiting", "--yes"]);
    assert_eq!((code, out.as_str()), (0, "283 waiting lines removed; they count as dropped\n"));
    assert_eq!(conserved(0), (303, 3, 283, 0));
    assert_eq!(run(place, &["cat", "energy", "--all"]).stdout, b"");
    assert_eq!(said(place, &["verify"]).0, 0);
}

#[test]
fn only_what_is_named_is_purged_and_only_with_yes() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &["energy", "air"]);
    let place = folder.path();
    // A torn tail, which the next owner sets aside.
    let last = segments(place, "energy").pop().unwrap();
    let mut torn = std::fs::read(&last).unwrap();
    torn.extend_from_slice(&[7; 77]);
    std::fs::write(&last, torn).unwrap();
    let before = everything(place);
    let refused: [&[&str]; 3] =
        [&["energy", "--dead"], &["energy", "--yes"], &["energy", "--dead", "--waiting", "--yes"]];
    for arguments in refused {
        assert_eq!(said(place, &[&["purge"], arguments].concat()).0, 2, "{arguments:?}");
    }
    assert_eq!(everything(place), before);
    assert_eq!(json(place, &["purge", "energy", "--dead", "--yes"])["removed"]["dead_letters"], 3);
    let stat = json(place, &["stat", "energy"])["lanes"][0].clone();
    assert_eq!((&stat["damaged_files"], &stat["damaged_bytes"]), (&1.into(), &77.into()));
    assert_eq!((&stat["dead_letters"], &stat["waiting"]), (&0.into(), &280.into()));
    let (_, out, _) = said(place, &["purge", "energy", "--damaged", "--yes"]);
    assert_eq!(out, "1 files with 77 B removed\n");
    assert_eq!(json(place, &["stat", "energy"])["lanes"][0]["damaged_files"], 0);
    assert_eq!(json(place, &["stat", "air"])["lanes"][0]["dead_letters"], 3, "another lane is left alone");
}

#[test]
fn mistakes_are_one_sentence_and_make_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("spool");
    for command in [vec!["ls"], vec!["cat", "energy"], vec!["retry", "energy"]] {
        let (code, _, err) = said(&place, &command);
        assert!(code == 1 && err.contains("there is no spool in") && err.contains("--spool"), "{err}");
        assert!(!place.exists());
    }
    std::fs::create_dir(&place).unwrap();
    assert_eq!(said(&place, &["ls"]).1, "no lanes\nnobody holds the spool\n");
    assert_eq!(said(&place, &["verify"]), (0, "no lanes\n".to_owned(), String::new()));
    assert!(json(&place, &["stat"])["lanes"].as_array().unwrap().is_empty());
    let (code, _, err) = said(&place, &["cat", "energy"]);
    assert!(code == 1 && err.contains("it has no lanes") && err.lines().count() == 1, "{err}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "not even a lock");
    made(&place, &["energy", "Air"]);
    for command in ["cat", "stat", "verify", "dead", "retry"] {
        let (code, out, err) = said(&place, &[command, "enrgy"]);
        assert!(code == 1 && out.is_empty(), "{command}");
        assert!(err.contains("there is no lane \"enrgy\"") && err.contains("\"Air\", \"energy\""), "{err}");
    }
    assert!(!place.join("enrgy").exists());
    // A lane without anything.
    let spool = Spool::open(Arc::new(RealDisk), &place).unwrap();
    drop(spool.lane("empty", LaneOptions::default()).unwrap());
    drop(spool);
    assert_eq!(run(&place, &["cat", "empty"]).stdout, b"");
    assert_eq!(said(&place, &["verify", "empty"]).0, 0);
    assert_eq!(json(&place, &["stat", "empty"])["lanes"][0]["accepted"], 0);
}

#[test]
fn the_spool_of_a_configuration_is_found() {
    let folder = tempfile::tempdir().unwrap();
    made(&folder.path().join("graylogic-spool"), &["energy"]);
    made(&folder.path().join("other"), &["air"]);
    let config = folder.path().join("config.yaml");
    let ask = |arguments: &[&str], environment: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graylogic"));
        command.current_dir(folder.path()).env_remove("GRAYLOGIC_INFLUXDB_SPOOL").args(arguments);
        environment.map(|spool| command.env("GRAYLOGIC_INFLUXDB_SPOOL", spool));
        let output = command.output().unwrap();
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    let with_config = ["spool", "ls", "--config", "config.yaml"];
    assert!(ask(&["spool", "ls"], None).contains("energy"));
    assert!(ask(&["spool", "ls"], Some("other")).contains("air"));
    std::fs::write(&config, "influxdb:\n  spool: ./other\n").unwrap();
    assert!(ask(&with_config, None).contains("air"));
    std::fs::write(&config, "influxdb:\n  spool: off\n").unwrap();
    assert!(ask(&with_config, None).contains("in memory only"));
}

#[test]
fn a_client_whose_server_is_away_is_looked_at_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("spool");
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Config::remote(&format!("http://{free}")).unwrap();
    let client = Client::connect(&config.with_bucket("house").with_spool(Some(place.clone()))).unwrap();
    for i in 0..50 {
        client.write_energy_metric_at("hvac", f64::from(i), None, Timestamp::from_nanos(i.into())).unwrap();
    }
    client.flush(Level::Durable, Duration::from_secs(20)).unwrap();
    let ls = json(&place, &["ls"]);
    assert_eq!((&ls["held"], &ls["process"]), (&true.into(), &std::process::id().into()));
    assert_eq!((&ls["lanes"][0]["lane"], &ls["lanes"][0]["waiting"]), (&"house".into(), &50.into()));
    let cat = run(&place, &["cat", "house"]);
    assert_eq!(text(&cat.stdout).lines().count(), 50);
    assert!(
        text(&cat.stdout).starts_with("energy,device_id=hvac power_watts=0.0 0\n"),
        "{}",
        text(&cat.stdout)
    );
    assert_eq!(said(&place, &["verify"]).0, 0);
    client.close(Duration::from_millis(100)).unwrap();
    assert_eq!(json(&place, &["ls"])["held"], false);
    assert_eq!(run(&place, &["cat", "house"]).stdout, cat.stdout);
}

#[test]
fn a_reader_who_stops_reading_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
    let (lane, _) = spool.lane("energy", LaneOptions::default().keep_free(0)).unwrap();
    append(&lane, 1..50_000);
    for extra in [&["--all"][..], &["--json"]] {
        let arguments = [&["cat", "energy"], extra].concat();
        let mut command = graylogic(folder.path(), &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{extra:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{extra:?}");
    }
}

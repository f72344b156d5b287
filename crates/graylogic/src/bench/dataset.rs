//! The data set of the store's figures: 500 series of a building, a reading each 10 s. The same on every machine: its
//! first million lines have a known SHA-256.

use std::io::Write as _;

/// Series of the data set.
pub(crate) const SERIES: usize = 500;
/// Ticks of a day.
pub(crate) const TICKS_PER_DAY: usize = 8640;

/// Writes the data set line by line.
pub(crate) struct DataSet {
    series: Vec<Sensor>,
    tick: u64,
    next: usize,
}

impl DataSet {
    /// The data set from its first line on.
    pub(crate) fn new() -> Self {
        Self { series: (0..SERIES as u64).map(Sensor::new).collect(), tick: 0, next: 0 }
    }

    /// Appends the next lines.
    pub(crate) fn lines(&mut self, n: usize, out: &mut Vec<u8>) {
        for _ in 0..n {
            self.series[self.next].line(self.tick, out);
            self.next += 1;
            if self.next == SERIES {
                self.next = 0;
                self.tick += 1;
            }
        }
    }
}

/// One series: a walk with a generator of its own.
struct Sensor {
    sid: u64,
    state: u64,
    a: f64,
    b: f64,
    c: f64,
}

/// Extra power or load that switches on and off.
const LOADS: [f64; 4] = [0.0, 60.0, 450.0, 1200.0];

impl Sensor {
    fn new(sid: u64) -> Self {
        let state = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(sid + 1) | 1;
        let mut sensor = Self { sid, state, a: 0.0, b: 0.0, c: 0.0 };
        for _ in 0..8 {
            sensor.random();
        }
        let u = sensor.uni();
        match sid % 20 {
            0..=6 => {
                sensor.a = 19.0 + 4.0 * u;
                sensor.b = sensor.a;
            }
            7..=13 => sensor.a = 20.0 + 300.0 * u,
            14..=17 => {
                sensor.a = 1000.0 + 20_000.0 * u;
                sensor.b = 300.0 + 500.0 * u;
            }
            _ => {}
        }
        sensor
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn uni(&mut self) -> f64 {
        (self.random() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gauss(&mut self) -> f64 {
        (self.uni() + self.uni() + self.uni() + self.uni() - 2.0) * 1.732_050_8
    }

    fn line(&mut self, k: u64, out: &mut Vec<u8>) {
        let jitter = (20.0 * self.uni()) as u64;
        let millis = 1_699_920_000_000 + 10_000 * k + self.sid * 10_000 / SERIES as u64 + jitter;
        let (sid, room) = (self.sid, self.sid / 10);
        let (head, value) = match sid % 20 {
            0..=6 => {
                self.a += 0.02 * self.gauss() + 0.0005 * (self.b - self.a);
                let day = (2.0 * std::f64::consts::PI * k as f64 / 8640.0).sin();
                let value = (self.a + 1.5 * day + 0.03 * self.gauss()) * 10.0;
                (("environment", "temp", "temperature_c"), value.round() / 10.0)
            }
            7..=13 => {
                if self.uni() < 0.001 {
                    self.b = LOADS[(4.0 * self.uni()) as usize];
                }
                let value = (self.a + self.b + 3.0 * self.gauss()).max(0.0) * 10.0;
                (("energy", "meter", "power_watts"), value.round() / 10.0)
            }
            14..=17 => {
                if self.uni() < 0.001 {
                    self.c = LOADS[(4.0 * self.uni()) as usize];
                }
                self.a += (self.b + self.c + 30.0 * self.gauss()).max(0.0) * 10.0 / 3.6e6;
                (("energy", "meter", "energy_kwh"), (self.a * 1000.0).round() / 1000.0)
            }
            _ => {
                if self.uni() < 0.002 {
                    self.a = 1.0 - self.a;
                }
                (("device_metrics", "light", "state"), self.a)
            }
        };
        let (measurement, kind, field) = head;
        writeln!(out, "{measurement},device={kind}-{sid:03},room=r{room:02} {field}={value} {millis}000000")
            .expect("writing to memory does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_first_million_lines_are_those_every_figure_is_made_with() {
        let mut data = DataSet::new();
        let mut hash = Sha256::new();
        let mut lines = Vec::new();
        for i in 0..200 {
            lines.clear();
            data.lines(5000, &mut lines);
            if i == 0 {
                assert!(lines.starts_with(
                    b"environment,device=temp-000,room=r00 temperature_c=22.4 1699920000011000000\n"
                ));
            }
            hash.update(&lines);
        }
        let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "b5b4f368735225a41dabf95aad31c80ee03966982a831fa1f88d05c755046abd");
    }
}

//! The shipped recordings: what their columns mean in the schema, and their readings. `data/README.md` tells their
//! origin and licences.

use crate::failure::Failure;
use flate2::read::GzDecoder;
use graylogic_domain::{DEVICE_ID, DEVICE_METRICS, ENERGY, MEASUREMENT, POWER_WATTS, VALUE};
use graylogic_line::Timestamp;
use std::io::Read;

/// Time zone of the house in Sceaux.
pub(crate) const HOUSE_ZONE: &str = "Europe/Paris";
/// The meter of the house in Sceaux.
pub(crate) const HOUSE: &str = "house-sceaux";
/// The house's readings are means over a minute.
pub(crate) const HOUSE_STEP_SECONDS: f64 = 60.0;

/// A recording and what it holds.
pub(crate) struct Recording {
    pub(crate) title: &'static str,
    file: &'static str,
    bytes: &'static [u8],
    columns: &'static [Column],
}

/// What a column of a recording is.
struct Column {
    name: &'static str,
    device_id: &'static str,
    meaning: Meaning,
}

enum Meaning {
    /// Power as its source reports it, consumption of a house and generation of a roof alike; the factor makes watts of it.
    Power(f64),
    /// A reading of a device under this name.
    Metric(&'static str),
}

const fn power(name: &'static str, device_id: &'static str, watts: f64) -> Column {
    Column { name, device_id, meaning: Meaning::Power(watts) }
}

const fn metric(name: &'static str, device_id: &'static str, measurement: &'static str) -> Column {
    Column { name, device_id, meaning: Meaning::Metric(measurement) }
}

macro_rules! data {
    ($file:literal) => {
        include_bytes!(concat!("../../../data/", $file, ".csv.gz"))
    };
}

/// All shipped recordings.
pub(crate) const RECORDINGS: [Recording; 5] = [
    Recording {
        title: "house in Sceaux",
        file: "household-power.csv.gz",
        bytes: data!("household-power"),
        columns: &[
            power("active_kw", HOUSE, 1000.0),
            metric("reactive_kw", HOUSE, "reactive_power_kvar"),
            metric("voltage_v", HOUSE, "voltage_v"),
            metric("current_a", HOUSE, "current_a"),
            // Wh of a minute are 60 times as many watts.
            power("sub_metering_1_wh", "house-sceaux-kitchen", 60.0),
            power("sub_metering_2_wh", "house-sceaux-laundry", 60.0),
            power("sub_metering_3_wh", "house-sceaux-heating", 60.0),
        ],
    },
    Recording {
        title: "solar roof",
        file: "pv-inverter.csv.gz",
        bytes: data!("pv-inverter"),
        columns: &[
            power("ac_power_kw", "pv-roof", 1000.0),
            power("inverter_ac_power_w", "pv-roof-inverter-2", 1.0),
            metric("inverter_dc_power_w", "pv-roof-inverter-2", "dc_power_w"),
            metric("inverter_dc_voltage_v", "pv-roof-inverter-2", "dc_voltage_v"),
            metric("inverter_dc_current_a", "pv-roof-inverter-2", "dc_current_a"),
            metric("inverter_temp_c", "pv-roof-inverter-2", "temperature_c"),
            metric("module_temp_c", "pv-roof", "module_temperature_c"),
            metric("ambient_temp_c", "pv-roof", "outdoor_temperature_c"),
            metric("irradiance_w_m2", "pv-roof", "irradiance_w_m2"),
            metric("irradiance_refcell_w_m2", "pv-roof", "reference_cell_irradiance_w_m2"),
            metric("refcell_temp_c", "pv-roof", "reference_cell_temperature_c"),
            metric("wind_speed_m_s", "pv-roof", "wind_speed_m_s"),
        ],
    },
    Recording {
        title: "inverter with a stuck signal",
        file: "pv-stale.csv.gz",
        bytes: data!("pv-stale"),
        columns: &[
            metric("ac_power_normalized", "pv-inverter-2173", "ac_power_normalized"),
            metric("stale", "pv-inverter-2173", "stuck_label"),
        ],
    },
    Recording {
        title: "meters of a UK home",
        file: "uk-meters.csv.gz",
        bytes: data!("uk-meters"),
        columns: &[
            // kWh of an hour are 1000 times as many watts.
            power("electricity_kwh", "uk-home-electricity", 1000.0),
            power("gas_kwh", "uk-home-gas", 1000.0),
            metric("outdoor_temp_c", "uk-home", "outdoor_temperature_c"),
        ],
    },
    Recording {
        title: "water main",
        file: "water-flow.csv.gz",
        bytes: data!("water-flow"),
        columns: &[metric("flow_l_per_s", "water-main", "flow_l_per_s")],
    },
];

/// A series of a recording with its readings, in the order of time.
pub(crate) struct Series {
    pub(crate) measurement: &'static str,
    pub(crate) tags: Vec<(&'static str, &'static str)>,
    pub(crate) field: &'static str,
    pub(crate) readings: Vec<(Timestamp, f64)>,
}

impl Recording {
    /// The series of the recording.
    pub(crate) fn read(&self) -> Result<Vec<Series>, Failure> {
        let broken = |why: String| Failure::because(format_args!("read the recording {}", self.file), why);
        let mut text = String::new();
        GzDecoder::new(self.bytes).read_to_string(&mut text).map_err(|e| broken(e.to_string()))?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let head = reader.headers().map_err(|e| broken(e.to_string()))?.clone();
        let place = |name: &str| {
            head.iter().position(|h| h == name).ok_or_else(|| broken(format!("it has no column {name}")))
        };
        let time = place("time")?;
        let mut series = Vec::new();
        for column in self.columns {
            let (measurement, tags, field) = match column.meaning {
                Meaning::Power(_) => (ENERGY, vec![(DEVICE_ID, column.device_id)], POWER_WATTS),
                Meaning::Metric(name) => {
                    (DEVICE_METRICS, vec![(DEVICE_ID, column.device_id), (MEASUREMENT, name)], VALUE)
                }
            };
            series.push((
                place(column.name)?,
                column,
                Series { measurement, tags, field, readings: Vec::new() },
            ));
        }
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).map_err(|e| broken(e.to_string()))? {
            let at = row.get(time).unwrap_or_default();
            let at: jiff::Timestamp = at.parse().map_err(|e| broken(format!("time {at:?}: {e}")))?;
            let at = Timestamp::from_nanos(at.as_nanosecond() as i64);
            for (place, column, series) in &mut series {
                let text = row.get(*place).unwrap_or_default();
                let Some(v) = cell(text).map_err(|e| broken(format!("{} {text:?}: {e}", column.name)))?
                else {
                    continue;
                };
                let v = match column.meaning {
                    Meaning::Power(factor) => watts(v, factor),
                    Meaning::Metric(_) => v,
                };
                series.readings.push((at, v));
            }
        }
        Ok(series.into_iter().map(|(_, _, series)| series).collect())
    }
}

/// A cell's value; an empty one is a missing reading, true and false are 1 and 0.
fn cell(text: &str) -> Result<Option<f64>, std::num::ParseFloatError> {
    match text {
        "" => Ok(None),
        "true" => Ok(Some(1.0)),
        "false" => Ok(Some(0.0)),
        number => number.parse().map(Some),
    }
}

/// Watts to the milliwatt, which is finer than any of the meters; no power is 0, without a sign.
fn watts(v: f64, factor: f64) -> f64 {
    (v * factor * 1000.0).round() / 1000.0 + 0.0
}

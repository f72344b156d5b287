//! What a reading of a building means: its measurement, tags, fields and units. Pure; knows no storage and no network.
//!
//! ```
//! use graylogic_domain::DeviceMetric;
//! use graylogic_line::{Dialect, Encoder, Timestamp};
//!
//! let level = DeviceMetric { device_id: "light-living-1", measurement: "level", value: 50.0 };
//! let mut line = Vec::new();
//! level.encode(&Encoder::new(Dialect::Portable), Timestamp::from_nanos(7), &mut line)?;
//! assert_eq!(line, b"device_metrics,device_id=light-living-1,measurement=level value=50.0 7\n");
//! # Ok::<(), graylogic_line::EncodeError>(())
//! ```
//!
//! # Signs and units
//! Power is in watts, energy in kilowatt-hours. Values are stored as the source reports them, and what their sign means is the
//! source's convention: for a device consumption is positive, so a fan that draws 450 W reports 450; for a solar roof or the
//! discharge of a battery generation is. People are shown words ("importing 2.5 kW"), never the sign.
//!
//! # Not here yet
//! Counters, balances, tariffs, local days, baselines and alerts.

mod schema;

pub use schema::{
    DEVICE_ID, DEVICE_METRICS, DeviceMetric, ENERGY, ENERGY_KWH, EnergyMetric, MEASUREMENT, METRIC, PHM,
    POWER_WATTS, PhmMetric, VALUE,
};

//! The schema: the only place where names of measurements, tags and fields are written down.
//!
//! | measurement | tags | fields |
//! |---|---|---|
//! | `device_metrics` | `device_id`, `measurement` | `value` |
//! | `energy` | `device_id` | `power_watts`, `energy_kwh` (absent when unknown) |
//! | `phm` | `device_id`, `metric` | `value` |
//!
//! All fields are floats, so that 5 and then 4.5 never conflict. Room, site and unit are looked up when asked for, not
//! written as tags: renaming a room must not begin a new series.

use graylogic_line::{EncodeError, Encoder, FieldRef, Point, Timestamp};

/// Measurement of device readings.
pub const DEVICE_METRICS: &str = "device_metrics";
/// Measurement of power and energy.
pub const ENERGY: &str = "energy";
/// Measurement of equipment health.
pub const PHM: &str = "phm";
/// Tag: which device.
pub const DEVICE_ID: &str = "device_id";
/// Tag of `device_metrics`: what was measured.
pub const MEASUREMENT: &str = "measurement";
/// Tag of `phm`: which health metric.
pub const METRIC: &str = "metric";
/// Field of `device_metrics` and `phm`.
pub const VALUE: &str = "value";
/// Field of `energy`: power in watts.
pub const POWER_WATTS: &str = "power_watts";
/// Field of `energy`: a meter's reading in kilowatt-hours.
pub const ENERGY_KWH: &str = "energy_kwh";

/// A reading of a device: brightness, temperature, on or off as 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceMetric<'a> {
    /// Which device.
    pub device_id: &'a str,
    /// What was measured.
    pub measurement: &'a str,
    /// Its value, in the unit that goes with the name.
    pub value: f64,
}

/// Power at a meter, with the meter's reading when it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnergyMetric<'a> {
    /// Which meter or energy node.
    pub device_id: &'a str,
    /// Watts, as the source reports them: a device that draws 450 W reports 450.
    pub power_watts: f64,
    /// Kilowatt-hours; `None` writes no field, which is not the same as 0.
    pub energy_kwh: Option<f64>,
}

/// A metric of the health of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhmMetric<'a> {
    /// Which machine.
    pub device_id: &'a str,
    /// Which metric.
    pub metric: &'a str,
    /// Its value, in the unit that goes with the name.
    pub value: f64,
}

impl<'a> DeviceMetric<'a> {
    /// The tags of the reading.
    #[must_use]
    pub fn tags(&self) -> [(&'static str, &'a str); 2] {
        [(DEVICE_ID, self.device_id), (MEASUREMENT, self.measurement)]
    }

    /// Appends the reading as a line; allocates nothing.
    ///
    /// # Errors
    /// When an id or the value cannot be written; then `out` is as before.
    pub fn encode(&self, encoder: &Encoder, time: Timestamp, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encoder.encode_parts(
            DEVICE_METRICS,
            &self.tags(),
            &[(VALUE, FieldRef::Float(self.value))],
            Some(time),
            out,
        )
    }

    /// The reading as a point without time.
    #[must_use]
    pub fn to_point(&self) -> Point {
        Point::new(DEVICE_METRICS)
            .tag(DEVICE_ID, self.device_id)
            .tag(MEASUREMENT, self.measurement)
            .field(VALUE, self.value)
    }
}

impl<'a> EnergyMetric<'a> {
    /// The tags of the reading.
    #[must_use]
    pub fn tags(&self) -> [(&'static str, &'a str); 1] {
        [(DEVICE_ID, self.device_id)]
    }

    /// Appends the reading as a line; allocates nothing.
    ///
    /// # Errors
    /// When the id or a value cannot be written; then `out` is as before.
    pub fn encode(&self, encoder: &Encoder, time: Timestamp, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let fields = [
            (POWER_WATTS, FieldRef::Float(self.power_watts)),
            (ENERGY_KWH, FieldRef::Float(self.energy_kwh.unwrap_or(0.0))),
        ];
        let known = if self.energy_kwh.is_some() { 2 } else { 1 };
        encoder.encode_parts(ENERGY, &self.tags(), &fields[..known], Some(time), out)
    }

    /// The reading as a point without time.
    #[must_use]
    pub fn to_point(&self) -> Point {
        let point = Point::new(ENERGY).tag(DEVICE_ID, self.device_id).field(POWER_WATTS, self.power_watts);
        match self.energy_kwh {
            Some(energy) => point.field(ENERGY_KWH, energy),
            None => point,
        }
    }
}

impl<'a> PhmMetric<'a> {
    /// The tags of the reading.
    #[must_use]
    pub fn tags(&self) -> [(&'static str, &'a str); 2] {
        [(DEVICE_ID, self.device_id), (METRIC, self.metric)]
    }

    /// Appends the reading as a line; allocates nothing.
    ///
    /// # Errors
    /// When an id or the value cannot be written; then `out` is as before.
    pub fn encode(&self, encoder: &Encoder, time: Timestamp, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encoder.encode_parts(PHM, &self.tags(), &[(VALUE, FieldRef::Float(self.value))], Some(time), out)
    }

    /// The reading as a point without time.
    #[must_use]
    pub fn to_point(&self) -> Point {
        Point::new(PHM).tag(DEVICE_ID, self.device_id).tag(METRIC, self.metric).field(VALUE, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graylogic_line::Dialect;

    #[test]
    fn readings_are_written_byte_for_byte_as_the_schema_says() {
        let encoder = Encoder::new(Dialect::Portable);
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000);
        let line = |write: &dyn Fn(&mut Vec<u8>) -> Result<(), EncodeError>, point: Point| {
            let (mut direct, mut through_point) = (Vec::new(), Vec::new());
            write(&mut direct).unwrap();
            encoder.encode(&point.timestamp(time), &mut through_point).unwrap();
            assert_eq!(direct, through_point);
            String::from_utf8(direct).unwrap()
        };
        let device = DeviceMetric { device_id: "light-living-1", measurement: "level", value: 50.0 };
        assert_eq!(
            line(&|out| device.encode(&encoder, time, out), device.to_point()),
            "device_metrics,device_id=light-living-1,measurement=level value=50.0 1700000000000000000\n"
        );
        let mut energy = EnergyMetric { device_id: "hvac-main", power_watts: 450.0, energy_kwh: Some(0.0) };
        assert_eq!(
            line(&|out| energy.encode(&encoder, time, out), energy.to_point()),
            "energy,device_id=hvac-main power_watts=450.0,energy_kwh=0.0 1700000000000000000\n"
        );
        energy.energy_kwh = None;
        assert_eq!(
            line(&|out| energy.encode(&encoder, time, out), energy.to_point()),
            "energy,device_id=hvac-main power_watts=450.0 1700000000000000000\n"
        );
        let phm = PhmMetric { device_id: "pump 2", metric: "vibration_mm_s", value: 2.1 };
        assert_eq!(
            line(&|out| phm.encode(&encoder, time, out), phm.to_point()),
            "phm,device_id=pump\\ 2,metric=vibration_mm_s value=2.1 1700000000000000000\n"
        );
    }

    #[test]
    fn an_unknown_energy_is_not_read() {
        let encoder = Encoder::new(Dialect::Portable);
        let energy = EnergyMetric { device_id: "a", power_watts: 1.0, energy_kwh: Some(f64::NAN) };
        let error = energy.encode(&encoder, Timestamp::from_nanos(1), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("energy_kwh"), "{error}");
    }
}

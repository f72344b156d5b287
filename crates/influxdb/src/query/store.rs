//! A question put to the embedded store.

use super::answer::Answer;
use super::{Aggregate, CheckedQuery, QuerySeries, Shape, TagTest, is_number};
use crate::error::{Error, Kind};
use graylogic_store::{Matcher, Selector, SeriesInfo, Store, Summary, Value, Windows};
use std::time::Duration;

impl CheckedQuery {
    /// The answer of an embedded store's bucket.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] with the reason; [`Error::is_not_connected`] when the store is closed.
    pub fn ask_store(&self, store: &Store, bucket: &str) -> Result<Vec<QuerySeries>, Error> {
        let mut answer = Answer::default();
        for selector in self.selectors(bucket) {
            self.ask_selected(store, &selector, &mut answer)?;
        }
        answer.finish(self)
    }

    /// Selectors that mean no series twice and together all that are asked for, perhaps more: those that fail another
    /// test are left out when they are added.
    fn selectors(&self, bucket: &str) -> Vec<Selector> {
        let all = Selector::bucket(bucket).measurement(&*self.measurement);
        // Of a test with one value the store's index makes use; of those with several only one can be taken apart.
        let apart = self.tags.iter().filter(|t| t.values.len() > 1).max_by_key(|t| t.values.len());
        let single = self.tags.iter().filter_map(|TagTest { key, values }| match &values[..] {
            [value] => Some((key, value)),
            _ => None,
        });
        let all = single.fold(all, |s, (key, value)| s.tag(&**key, Matcher::equal(&**value)));
        let tagged = match apart {
            None => vec![all],
            Some(TagTest { key, values }) => {
                values.iter().map(|v| all.clone().tag(&**key, Matcher::equal(&**v))).collect()
            }
        };
        if self.fields.is_empty() {
            return tagged;
        }
        let named = |s: &Selector| self.fields.iter().map(|f| s.clone().field(&**f)).collect::<Vec<_>>();
        tagged.iter().flat_map(named).collect()
    }

    fn ask_selected(&self, store: &Store, selector: &Selector, answer: &mut Answer) -> Result<(), Error> {
        let failed = |e| self.store_failed(e);
        match self.shape {
            Shape::Readings => {
                for block in store.scan(selector, self.range).map_err(failed)? {
                    let block = block.map_err(failed)?;
                    let Some(at) = self.place(answer, &block.series)? else { continue };
                    for (i, &time) in block.times.iter().enumerate() {
                        answer.add(self, at, time, block.values.get(i))?;
                    }
                }
            }
            Shape::Windows { windows, aggregate, .. } => {
                let [every, offset] =
                    [windows.every, windows.offset].map(|n| Duration::from_nanos(n.unsigned_abs()));
                let cut = Windows::every_offset(every, offset).map_err(failed)?;
                for found in store.windows(selector, self.range, &cut).map_err(failed)? {
                    if aggregate.needs_numbers() && !is_number(found.series.field_type()) {
                        if self.fields.is_empty() {
                            continue;
                        }
                        return Err(self.not_numeric(found.series.field()));
                    }
                    let Some(at) = self.place(answer, &found.series)? else { continue };
                    for window in &found.windows {
                        if let Some(value) = value_of(&window.summary, aggregate).map_err(failed)? {
                            answer.add(self, at, window.start.as_nanos(), value)?;
                        }
                    }
                }
            }
            Shape::Latest if self.is_of_all_time() => {
                for found in store.latest(selector).map_err(failed)? {
                    let Some(at) = self.place(answer, &found.series)? else { continue };
                    answer.add(self, at, found.time.as_nanos(), found.value)?;
                }
            }
            Shape::Latest => {
                for found in store.windows(selector, self.range, &Windows::whole()).map_err(failed)? {
                    let Some(at) = self.place(answer, &found.series)? else { continue };
                    for window in found.windows {
                        let (time, value) = window.summary.last;
                        answer.add(self, at, time.as_nanos(), value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn place(&self, answer: &mut Answer, series: &SeriesInfo) -> Result<Option<usize>, Error> {
        let tags = series.tags().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        answer.series(self, tags, series.field())
    }

    fn store_failed(&self, error: graylogic_store::Error) -> Error {
        if error.is_closed() {
            return Error::closed();
        }
        let retryable = error.is_retryable();
        let doing = format!("query {:?}", super::abbreviated(&self.measurement));
        Error::because(Kind::QueryFailed, doing, error).retryable(retryable)
    }
}

fn value_of(summary: &Summary, aggregate: Aggregate) -> Result<Option<Value>, graylogic_store::Error> {
    Ok(match aggregate {
        Aggregate::Count => Some(Value::Unsigned(summary.count)),
        Aggregate::Sum => summary.sum()?,
        Aggregate::Mean => summary.mean()?.map(Value::Float),
        Aggregate::Min => summary.min.clone(),
        Aggregate::Max => summary.max.clone(),
        Aggregate::First => Some(summary.first.1.clone()),
        Aggregate::Last => Some(summary.last.1.clone()),
    })
}

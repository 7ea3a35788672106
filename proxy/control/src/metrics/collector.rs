//! Measurements as OpenMetrics: names, units, labels.

use std::fmt::Error;

use postern_snapshot::{CoreMetrics, Histogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};

use super::table::Value::{
    self, CoreCounter, CoreDirections, CoreGauge, CoreHistogram, CoreReasons, Counter, Gauge, Info,
    Results,
};
use super::table::{METRICS, Own};

/// One scrape.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) cores: Vec<CoreMetrics>,
    pub(super) own: Own,
}

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for metric in &METRICS {
            let kind = metric.value.kind();
            let mut metric_encoder =
                encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            self.encode_values(&metric.value, &mut metric_encoder)?;
        }
        Ok(())
    }
}

impl Measured {
    fn encode_values(&self, value: &Value, encoder: &mut MetricEncoder<'_>) -> Result<(), Error> {
        match value {
            Counter(read) => return count(encoder, read(&self.own)),
            Gauge(read) => return encoder.encode_gauge(&read(&self.own)),
            Results(read) => {
                for (result, value) in read(&self.own) {
                    count(&mut encoder.encode_family(&[("result", *result)])?, *value)?;
                }
                return Ok(());
            }
            Info(read) => {
                if let Some(info) = &self.own.engine_info {
                    let labels = read(info);
                    encoder.encode_family(&labels)?.encode_gauge(&1)?;
                }
                return Ok(());
            }
            _ => {}
        }
        for core in &self.cores {
            encode_core(core, value, encoder)?;
        }
        Ok(())
    }
}

fn encode_core(
    core: &CoreMetrics,
    value: &Value,
    encoder: &mut MetricEncoder<'_>,
) -> Result<(), Error> {
    let number = core.core.to_string();
    let number = ("core", number.as_str());
    match value {
        CoreCounter(read) => count(&mut encoder.encode_family(&[number])?, read(core)),
        CoreGauge(read) => encoder.encode_family(&[number])?.encode_gauge(&read(core)),
        CoreDirections(read) => {
            let (up, down) = read(core);
            count(
                &mut encoder.encode_family(&[number, ("direction", "up")])?,
                up,
            )?;
            count(
                &mut encoder.encode_family(&[number, ("direction", "down")])?,
                down,
            )
        }
        CoreReasons(read) => {
            for (reason, value) in read(core) {
                let labels = [number, ("reason", reason.as_str())];
                count(&mut encoder.encode_family(&labels)?, *value)?;
            }
            Ok(())
        }
        CoreHistogram(read) => {
            let histogram = read(core);
            let sum_s = seconds(histogram.sum_us);
            let labels = [number];
            encoder
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum_s, histogram.count(), &buckets(histogram), None)
        }
        Counter(_) | Gauge(_) | Results(_) | Info(_) => Ok(()),
    }
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> Result<(), Error> {
    encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Upper bounds in seconds with their own counts. The last one is unbounded: were it a number,
/// quantiles would be none.
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let last = histogram.buckets.len().saturating_sub(1);
    let bounded = histogram.buckets.iter().enumerate();
    bounded
        .map(|(index, count)| {
            let bound = if index == last {
                f64::INFINITY
            } else {
                seconds(1 << index.min(63))
            };
            (bound, *count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::metrics_markdown;
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    fn scraped(measured: Measured) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(measured));
        let mut text = String::new();
        encode(&mut text, &registry).expect("encodes");
        text
    }

    #[test]
    fn a_core_tells_its_numbers_under_its_label() {
        let mut core = CoreMetrics {
            core: 3,
            bytes_up: 7,
            ..CoreMetrics::default()
        };
        core.refusals.insert("token_expired".to_owned(), 2);
        core.relay_latency.record(3);
        core.relay_latency.record(u64::MAX);
        let text = scraped(Measured {
            cores: vec![core],
            own: Own::default(),
        });
        for line in [
            "postern_relay_bytes_total{core=\"3\",direction=\"up\"} 7",
            "postern_refusals_total{core=\"3\",reason=\"token_expired\"} 2",
            "postern_relay_latency_seconds_bucket{le=\"0.000002\",core=\"3\"} 0",
            "postern_relay_latency_seconds_bucket{le=\"0.000004\",core=\"3\"} 1",
            "postern_relay_latency_seconds_bucket{le=\"+Inf\",core=\"3\"} 2",
            "postern_relay_latency_seconds_count{core=\"3\"} 2",
            "postern_engine_up 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_unbounded_bucket_is_the_last_one() {
        let text = scraped(Measured {
            cores: vec![CoreMetrics::default()],
            own: Own::default(),
        });
        let buckets: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("postern_relay_latency_seconds_bucket"))
            .collect();
        assert_eq!(buckets.len(), postern_snapshot::metrics::BUCKETS);
        assert!(buckets.last().expect("buckets").contains("+Inf"));
    }

    #[test]
    fn names_are_unique_and_in_the_manual() {
        let manual = metrics_markdown();
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert!(names.iter().all(|name| manual.contains(name)));
    }
}

//! `/metrics`: Prometheus text, written anew at each scrape out of what the node counts anyway.

use indexmap::IndexMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;

type Labels = Vec<(&'static str, String)>;

/// A count of observations by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, rising, and how many observations each bucket took (not added up). The last bound is
    /// `f64::INFINITY`, so that none is lost.
    buckets: Vec<(f64, u64)>,
    sum: f64,
}

impl Histogram {
    /// An empty one with these upper bounds, rising, and one more for what is beyond.
    pub fn new(bounds: &[f64]) -> Histogram {
        let buckets = bounds.iter().copied().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        Histogram { buckets, sum: 0.0 }
    }

    /// Counts one observation.
    pub fn observe(&mut self, value: f64) {
        if let Some((_, n)) = self.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            *n += 1;
            self.sum += value;
        }
    }
}

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Counter(u64),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Metric {
    help: &'static str,
    /// In the order of their labels, so that two scrapes of one state are the same text.
    samples: BTreeMap<Labels, Value>,
    /// Label sets seen, those under `other` included.
    sets: usize,
}

/// One scrape's worth of metrics.
#[derive(Debug)]
pub struct Exposition {
    metrics: IndexMap<&'static str, Metric>,
    most_labels: usize,
}

impl Exposition {
    /// An empty page. A metric takes at most `most_labels` label sets; what comes after is added up under
    /// `other` (A25), or left out where a sum says nothing (gauges).
    pub fn new(most_labels: usize) -> Exposition {
        Exposition { metrics: IndexMap::new(), most_labels }
    }

    fn metric(&mut self, name: &'static str, help: &'static str) -> &mut Metric {
        self.metrics.entry(name).or_insert_with(|| Metric { help, samples: BTreeMap::new(), sets: 0 })
    }

    /// Sets a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        let most = self.most_labels;
        let metric = self.metric(name, help);
        metric.sets += 1;
        if metric.sets <= most {
            metric.samples.insert(labels, Value::Gauge(value));
        }
    }

    /// Adds to a counter (its name is written with `_total` at the end).
    pub fn counter(&mut self, name: &'static str, help: &'static str, mut labels: Labels, value: u64) {
        let most = self.most_labels;
        let metric = self.metric(name, help);
        metric.sets += 1;
        if metric.sets > most {
            labels.iter_mut().for_each(|(_, v)| "other".clone_into(v));
        }
        if let Value::Counter(n) = metric.samples.entry(labels).or_insert(Value::Counter(0)) {
            *n += value;
        }
    }

    /// Sets a histogram.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, value: &Histogram) {
        self.metric(name, help).samples.insert(vec![], Value::Histogram(value.clone()));
    }

    /// The page, in the text format of OpenMetrics 1.0, of this loop of several in a process, if it is one.
    pub fn text(self, of_loop: Option<usize>) -> String {
        let labels = of_loop.map(|n| ("loop".into(), n.to_string().into()));
        let mut registry = Registry::with_prefix_and_labels("headwater", labels.into_iter());
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut out, &registry);
        out
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, metric) in &self.metrics {
            let kind = match metric.samples.values().next() {
                Some(Value::Counter(_)) => MetricType::Counter,
                Some(Value::Histogram(_)) => MetricType::Histogram,
                Some(Value::Gauge(_)) | None => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (labels, value) in &metric.samples {
                if labels.is_empty() {
                    // A metric without labels has one sample.
                    value.encode(encoder)?;
                    break;
                }
                value.encode(encoder.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            // Counts of things are shorter to read without a fraction.
            Value::Gauge(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
                ConstGauge::new(*value as i64).encode(encoder)
            }
            Value::Gauge(value) => ConstGauge::new(*value).encode(encoder),
            Value::Counter(value) => ConstCounter::new(*value).encode(encoder),
            Value::Histogram(h) => {
                let count = h.buckets.iter().map(|(_, n)| n).sum();
                encoder.encode_histogram::<Labels>(h.sum, count, &h.buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_has_help_type_and_labels_and_caps_them() {
        let mut e = Exposition::new(2);
        e.gauge("sessions", "Sessions now", vec![("protocol", "rtmp".into())], 3.0);
        for stream in ["a", "b", "c", "d"] {
            e.counter("bytes", "Bytes", vec![("stream", stream.into())], 5);
        }
        let text = e.text(None);
        assert!(text.contains("# TYPE headwater_sessions gauge"), "{text}");
        assert!(text.contains("headwater_sessions{protocol=\"rtmp\"} 3"), "{text}");
        assert!(text.contains("headwater_bytes_total{stream=\"a\"} 5"), "{text}");
        assert!(text.contains("headwater_bytes_total{stream=\"other\"} 10"), "{text}");
    }

    #[test]
    fn samples_come_in_the_order_of_their_labels_and_without_empty_braces() {
        let mut e = Exposition::new(10);
        e.gauge("up", "Up", vec![], 1.0);
        e.gauge("loss", "Loss", vec![], 0.25);
        for protocol in ["whip", "relay", "rtmp"] {
            e.gauge("sessions", "Sessions now", vec![("protocol", protocol.into())], 1.0);
        }
        let text = e.text(None);
        assert!(text.contains("\nheadwater_up 1\n"), "{text}");
        assert!(text.contains("\nheadwater_loss 0.25\n"), "{text}");
        let at = |protocol| text.find(protocol).unwrap();
        assert!(at("relay") < at("rtmp") && at("rtmp") < at("whip"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_histogram_adds_its_buckets_up_and_loses_nothing() {
        let mut h = Histogram::new(&[0.5, 1.0]);
        [0.25, 0.5, 0.75, 9.0].into_iter().for_each(|v| h.observe(v));
        let mut e = Exposition::new(10);
        e.histogram("join_seconds", "Joins", &h);
        let text = e.text(None);
        for line in [
            "_bucket{le=\"0.5\"} 2",
            "_bucket{le=\"1.0\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_count 4",
            "_sum 10.5",
        ] {
            assert!(text.contains(&format!("headwater_join_seconds{line}")), "{line}: {text}");
        }
    }
}

//! `/metrics`: Prometheus text, written anew at each scrape out of what the node counts anyway.

use indexmap::IndexMap;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Labels = Vec<(&'static str, String)>;

/// One scrape's worth of metrics.
pub struct Exposition {
    registry: Registry,
    gauges: IndexMap<&'static str, Family<Labels, Gauge<f64, AtomicU64>>>,
    counters: IndexMap<&'static str, (Family<Labels, Counter>, usize)>,
    most_labels: usize,
}

impl Exposition {
    /// An empty page. A metric takes at most `most_labels` label sets; what comes after is added up under
    /// `other` (A25).
    pub fn new(most_labels: usize) -> Exposition {
        Exposition {
            registry: Registry::with_prefix("headwater"),
            gauges: IndexMap::new(),
            counters: IndexMap::new(),
            most_labels,
        }
    }

    /// Sets a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        let registry = &mut self.registry;
        let family = self.gauges.entry(name).or_insert_with(|| {
            let family = Family::default();
            registry.register(name, help, family.clone());
            family
        });
        family.get_or_create(&labels).set(value);
    }

    /// Adds to a counter (its name is written with `_total` at the end).
    pub fn counter(&mut self, name: &'static str, help: &'static str, mut labels: Labels, value: u64) {
        let registry = &mut self.registry;
        let (family, sets) = self.counters.entry(name).or_insert_with(|| {
            let family = Family::default();
            registry.register(name, help, family.clone());
            (family, 0)
        });
        *sets += 1;
        if *sets > self.most_labels {
            labels.iter_mut().for_each(|(_, v)| *v = "other".to_owned());
        }
        family.get_or_create(&labels).inc_by(value);
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_help_type_and_labels_and_caps_them() {
        let mut e = Exposition::new(2);
        e.gauge("sessions", "Sessions now", vec![("protocol", "rtmp".into())], 3.0);
        for stream in ["a", "b", "c", "d"] {
            e.counter("bytes", "Bytes", vec![("stream", stream.into())], 5);
        }
        let text = e.text();
        assert!(text.contains("# TYPE headwater_sessions gauge"), "{text}");
        assert!(text.contains("headwater_sessions{protocol=\"rtmp\"} 3.0"), "{text}");
        assert!(text.contains("headwater_bytes_total{stream=\"a\"} 5"), "{text}");
        assert!(text.contains("headwater_bytes_total{stream=\"other\"} 10"), "{text}");
    }
}

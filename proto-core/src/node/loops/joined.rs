//! One answer out of the parts that the loops of a process gave.

use crate::http::api;
use crate::http::message::Response;
use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeMap;

/// How parts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Kind {
    /// Words: all good, or whoever is not.
    Words,
    /// Pages of metrics.
    Metrics,
    /// Lists of the API under this name.
    List(&'static str),
    /// Nodes, of whom each part knows its own.
    Nodes,
    /// Streams: what the origin says of one counts, and viewers are added up.
    Streams,
    /// Destinations: one that a loop pushes to is not idle, whatever the others do.
    Destinations,
}

/// Puts the parts, by loop, together. The first that is no success is the answer, with the loop's number.
pub(super) fn join(kind: Kind, parts: BTreeMap<usize, Response>) -> Response {
    if let Some((index, bad)) = parts.iter().find(|(_, r)| r.status >= 300) {
        let said = String::from_utf8_lossy(&bad.body);
        return Response::text(bad.status, format!("loop {index}: {}", said.trim()));
    }
    let bodies: Vec<&Bytes> = parts.values().map(|r| &r.body).collect();
    let list = |name: &str, put: &dyn Fn(&[Vec<Value>]) -> Vec<Value>| {
        let mut whole: Vec<Value> =
            bodies.iter().map(|b| serde_json::from_slice(b).unwrap_or_default()).collect();
        let lists: Vec<Vec<Value>> = whole
            .iter_mut()
            .map(|v| v.get_mut(name).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
            .collect();
        let mut first = whole.into_iter().next().unwrap_or_default();
        if let Some(object) = first.as_object_mut() {
            object.insert(name.to_owned(), put(&lists).into());
        }
        api::answer(&first)
    };
    let plain = |lists: &[Vec<Value>]| lists.concat();
    match kind {
        Kind::Words => parts.into_values().next().unwrap_or_else(|| Response::new(500)),
        Kind::Metrics => {
            let texts = bodies.iter().map(|b| String::from_utf8_lossy(b).into_owned());
            let page = metrics(&texts.collect::<Vec<_>>());
            parts
                .into_values()
                .next()
                .map_or_else(|| Response::new(500), |r| Response { body: page.into(), ..r })
        }
        Kind::List(name) => list(name, &plain),
        Kind::Nodes => list("nodes", &plain),
        Kind::Streams => list("streams", &streams),
        Kind::Destinations => list("destinations", &destinations),
    }
}

/// The pages of several loops as one: a metric's samples stand together (OpenMetrics 1.0, "MetricFamily"), each with its
/// loop's label.
fn metrics(pages: &[String]) -> String {
    let mut families: IndexMap<&str, (Vec<&str>, Vec<&str>)> = IndexMap::new();
    for page in pages {
        let mut name = "";
        for line in page.lines().filter(|l| *l != "# EOF") {
            match line.strip_prefix("# ") {
                Some(about) => {
                    name = about.split(' ').nth(1).unwrap_or_default();
                    let (heads, _) = families.entry(name).or_default();
                    if !heads.contains(&line) {
                        heads.push(line);
                    }
                }
                None => families.entry(name).or_default().1.push(line),
            }
        }
    }
    let lines = families.values().flat_map(|(heads, samples)| heads.iter().chain(samples));
    let mut out: String = lines.flat_map(|line| [*line, "\n"]).collect();
    out.push_str("# EOF\n");
    out
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn streams(lists: &[Vec<Value>]) -> Vec<Value> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for stream in lists.iter().flatten() {
        let mut stream = stream.clone();
        let key = text(&stream, "key").to_owned();
        if let Some(before) = all.remove(&key) {
            let viewers = |v: &Value| v.get("viewers").and_then(Value::as_u64).unwrap_or(0);
            let sum = viewers(&before) + viewers(&stream);
            if !text(&before, "origin").is_empty() {
                stream = before;
            }
            if let Some(object) = stream.as_object_mut() {
                object.insert("viewers".to_owned(), sum.into());
            }
        }
        all.insert(key, stream);
    }
    all.into_values().collect()
}

fn destinations(lists: &[Vec<Value>]) -> Vec<Value> {
    let idle = |d: &Value| text(d, "state") == "idle";
    let works = |d: &Value| lists.iter().all(|l| l.contains(d));
    let (first, rest) = lists.split_first().map_or((&[][..], &[][..]), |(f, r)| (f.as_slice(), r));
    let first = first.iter().filter(|d| !idle(d) || works(d));
    first.chain(rest.iter().flatten().filter(|d| !idle(d))).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn join_json(kind: Kind, parts: &[Value]) -> Value {
        let parts = parts.iter().map(|p| Response::json(200, p)).enumerate().collect();
        serde_json::from_slice(&join(kind, parts).body).unwrap()
    }

    #[test]
    fn samples_of_a_metric_stand_together() {
        let page = |n: u32| {
            format!(
                "# HELP a A.\n# TYPE a gauge\na{{loop=\"{n}\"}} 1\n# HELP b B.\n# TYPE b counter\n\
                 b_total{{loop=\"{n}\",x=\"y\"}} 2\n# EOF\n"
            )
        };
        let only = "# HELP c C.\n# TYPE c gauge\nc{loop=\"1\"} 3\n# EOF\n";
        let whole = metrics(&[page(0), page(1).replace("# EOF\n", only)]);
        assert_eq!(
            whole,
            "# HELP a A.\n# TYPE a gauge\na{loop=\"0\"} 1\na{loop=\"1\"} 1\n# HELP b B.\n# TYPE b counter\n\
             b_total{loop=\"0\",x=\"y\"} 2\nb_total{loop=\"1\",x=\"y\"} 2\n# HELP c C.\n# TYPE c gauge\n\
             c{loop=\"1\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn whoever_is_not_well_speaks_for_all() {
        let parts = |status, words: &str| {
            BTreeMap::from([(0, Response::text(200, "ready")), (1, Response::text(status, words))])
        };
        assert_eq!(join(Kind::Words, parts(200, "ready")).body, "ready\n");
        let bad = join(Kind::Words, parts(503, "draining"));
        assert_eq!((bad.status, &bad.body[..]), (503, &b"loop 1: draining\n"[..]));
    }

    #[test]
    fn lists_are_put_one_after_another() {
        let parts = [json!({"this": "n/0", "sessions": [1]}), json!({"this": "n/1", "sessions": [2, 3]})];
        assert_eq!(join_json(Kind::List("sessions"), &parts), json!({"this": "n/0", "sessions": [1, 2, 3]}));
    }

    #[test]
    fn a_stream_is_told_as_its_origin_tells_it_with_everybodys_viewers() {
        let stream = |origin: &str, viewers: u32| json!({"streams": [{"key": "live/x", "origin": origin, "viewers": viewers}]});
        for parts in [[stream("n/0", 2), stream("", 3)], [stream("", 3), stream("n/0", 2)]] {
            let whole = join_json(Kind::Streams, &parts);
            assert_eq!(whole, json!({"streams": [{"key": "live/x", "origin": "n/0", "viewers": 5}]}));
        }
    }

    #[test]
    fn a_destination_is_idle_only_where_nobody_pushes_to_it() {
        let idle = json!({"stream": "live/*", "url": "u", "state": "idle"});
        let busy = json!({"stream": "live/a", "url": "u/a", "state": "working"});
        let part = |list: &[&Value]| json!({ "destinations": list });
        let joined = |parts: &[Value]| join_json(Kind::Destinations, parts)["destinations"].clone();
        assert_eq!(joined(&[part(&[&idle]), part(&[&idle])]), json!([idle]));
        assert_eq!(joined(&[part(&[&idle]), part(&[&busy])]), json!([busy]));
        assert_eq!(joined(&[part(&[&busy]), part(&[&idle])]), json!([busy]));
    }
}

use super::*;
use proto_core::node::config::{LogFormat, Role};

fn load(act: impl FnOnce(&mut Loader)) -> Result<Loaded, Vec<String>> {
    let mut loader = Loader::new().unwrap();
    act(&mut loader);
    loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn config(act: impl FnOnce(&mut Loader)) -> Config {
    load(act).unwrap().config
}

fn complaints(act: impl FnOnce(&mut Loader)) -> Vec<String> {
    load(act).unwrap_err()
}

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    pairs.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect::<Vec<_>>().into_iter()
}

#[test]
fn nothing_given_is_the_defaults() {
    assert_eq!(config(|_| {}), Config::default());
}

#[test]
fn each_layer_beats_the_one_before() {
    let file = "bind = '127.0.0.9'\n[http]\nport = 1\n[rtmp]\nport = 2\n[webrtc]\nport = 3\n";
    let c = config(|l| {
        l.file_text("f", file);
        l.environment(variables(&[
            ("HEADWATER_RTMP_PORT", "20"),
            ("HEADWATER_WEBRTC_PORT", "30"),
            ("PATH", "x"),
        ]));
        l.set("webrtc.port=300");
        l.flag("--bind", "bind", "127.0.0.10");
    });
    assert_eq!((c.http.port, c.rtmp.port, c.webrtc.port), (1, 20, 300));
    assert_eq!(c.bind.to_string(), "127.0.0.10");
}

#[test]
fn every_key_can_be_set_from_each_layer_to_its_default() {
    let whole = print(&Config::default()).unwrap();
    let table: toml::Table = whole.parse().unwrap();
    let texts: Vec<(String, String)> = keys::all()
        .iter()
        .map(|k| {
            let text = match keys::get(&table, &k.name).unwrap() {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            (k.name.clone(), text)
        })
        .collect();
    let c = config(|l| {
        l.file_text("f", &whole);
        l.environment(texts.iter().map(|(k, v)| (keys::variable(k).into(), v.into())));
        texts.iter().for_each(|(k, v)| l.set(&format!("{k}={v}")));
    });
    assert_eq!(c, Config::default());
}

#[test]
fn lists_are_written_with_commas_or_as_toml() {
    for text in ["manager, edge", "[\"manager\", \"edge\"]"] {
        assert_eq!(config(|l| l.flag("--roles", "node.roles", text)).node.roles, [Role::Manager, Role::Edge]);
    }
    assert_eq!(config(|l| l.set("log.format=json")).log.format, LogFormat::Json);
}

#[test]
fn a_file_is_blamed_by_line_key_and_value() {
    let text = "# hello\n[http]\nport = 70000\n\n[log]\nlevel = \"loud\"\n[rtmp]\nprot = 3\nport = \"x\"\n[nods]\nname = 1\n";
    assert_eq!(
        complaints(|l| l.file_text("hw.toml", text)),
        [
            "hw.toml:3: http.port = 70000: must be a port from 1 to 65535; the default is 5080",
            "hw.toml:6: log.level = \"loud\": must be error, warn, info or debug; the default is \"info\"",
            "hw.toml:8: rtmp.prot = 3: there is no such key; did you mean rtmp.port? (`headwater config` prints all)",
            "hw.toml:9: rtmp.port = \"x\": must be a port from 1 to 65535; the default is 1935 (this is a TOML string)",
            "hw.toml:10: nods: there is no such key (`headwater config` prints all)",
        ]
    );
}

#[test]
fn what_is_no_toml_is_blamed_by_line() {
    let all = complaints(|l| l.file_text("hw.toml", "[http]\nport = 1\nport = 2\n"));
    assert!(all.len() == 1 && all[0].starts_with("hw.toml:3: this is no TOML: duplicate key"), "{all:?}");
    let all = complaints(|l| l.file_text("hw.toml", "a = = 1"));
    assert!(all[0].starts_with("hw.toml:1: this is no TOML: "), "{all:?}");
    assert_eq!(
        complaints(|l| l.file_text("hw.toml", "http = 5")),
        [
            "hw.toml:1: http = 5: http is a section; its keys are written below [http] in a file, as http.… elsewhere"
        ]
    );
}

#[test]
fn a_missing_file_is_named() {
    let all = complaints(|l| l.file(Path::new("no/such/file.toml")));
    assert!(all[0].starts_with("--config no/such/file.toml: the file cannot be read: "), "{all:?}");
}

#[test]
fn text_layers_are_blamed_by_name() {
    assert_eq!(
        complaints(|l| {
            l.environment(variables(&[("HEADWATER_LOG_FORMAT", "xml")]));
            l.set("http.port");
            l.set("rtmp.prt=9");
            l.flag("--roles", "node.roles", "manger");
        }),
        [
            "environment HEADWATER_LOG_FORMAT=xml: log.format must be text or json; the default is \"text\"",
            "--set http.port: must be KEY=VALUE, such as --set http.port=6080",
            "--set rtmp.prt=9: there is no such key; did you mean rtmp.port? (`headwater config` prints all)",
            "--roles manger: node.roles must be a list of manager, origin and edge; the default is \
             [\"manager\", \"origin\", \"edge\"]",
        ]
    );
}

#[test]
fn all_ports_are_made_higher_whoever_gave_them() {
    let of = |c: &Config| {
        let Config { http, https, rtmp, rtmps, rtsp, rtsps, webrtc, cluster, .. } = c;
        let tcp = [http.port, https.port, rtmp.port, rtmps.port, rtsp.port, rtsps.port, cluster.port];
        [&tcp[..], &[rtsp.udp_port, webrtc.port]].concat()
    };
    let given = |l: &mut Loader| l.set("http.port=80");
    let (before, after) = (config(given), config(|l| (given(l), l.offset_ports(400)).1));
    assert_eq!(of(&before).iter().map(|p| p + 400).collect::<Vec<_>>(), of(&after));
    assert_eq!(after.http.port, 480);
    // Every key that is called a port is among them.
    let named = keys::all().iter().filter(|k| k.name.ends_with("port") && k.allowed.contains("port")).count();
    assert_eq!(named, PORTS.len());
    assert_eq!(
        complaints(|l| (l.set("rtmp.port=65000"), l.offset_ports(600)).1),
        ["--port-offset 600: rtmp.port is 65000, and 65600 is no port: there are 65535"]
    );
}

#[test]
fn an_unknown_variable_is_only_a_warning() {
    let loaded = load(|l| {
        l.environment(variables(&[("HEADWATER_HTP_PORT", "1"), ("HEADWATER_SERVICE_HOST", "10.0.0.1")]));
    })
    .unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("did you mean HEADWATER_HTTP_PORT?"), "{warnings:?}");
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn rules_between_keys_name_the_source_of_the_value() {
    assert_eq!(
        complaints(|l| l.set("rtmp.port=5080")),
        ["--set rtmp.port=5080: http.port has port 5080 already; give each a port of its own"]
    );
    let all = complaints(|l| l.flag("--roles", "node.roles", "edge"));
    assert!(all[0].starts_with("cluster.manager = \"\" (the default): is needed"), "{all:?}");
}

#[test]
fn the_cluster_key_is_never_shown() {
    let loaded = load(|l| l.set("cluster.key=hunter2")).unwrap();
    let said = loaded.warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(said.contains("cluster.key") && !said.contains("hunter2"), "{said}");
}

#[test]
fn sources_and_destinations_are_tables_and_their_passwords_are_never_shown() {
    let text = "[[sources]]\nstream = \"live/cam\"\nurl = \"rtsp://admin:hunter2@10.0.0.7/s\"\nwhen = \"always\"\n\
                [[destinations]]\nstream = \"live/*\"\nurl = \"rtmp://a.example/x/{name}\"\n";
    let c = config(|l| l.file_text("hw.toml", text));
    assert_eq!((c.sources.len(), c.destinations.len()), (1, 1));
    let by_set = r#"sources=[{stream="live/a", url="rtsp://h/a"}]"#;
    assert_eq!(config(|l| l.set(by_set)).sources[0].stream, "live/a");
    for (text, word) in [
        ("[[sources]]\nstream = \"live/cam\"\n", "hw.toml:1: sources: must be a list of tables"),
        ("[[sources]]\nstream = \"live/cam\"\nurrl = \"rtsp://a:hunter2@h/\"\n", "unknown field `urrl`"),
        (
            "[[sources]]\nstream = \"a/b\"\nurl = \"rtsp://a:hunter2@h/\"\nwhen = \"never\"\n",
            "unknown variant `never`",
        ),
        ("sources = [\"rtsp://a:hunter2@h/\"]\n", "must be a list of tables"),
        ("[[sources]]\nstream = \"cam\"\nurl = \"rtsp://a:hunter2@h/\"\n", "number 1: stream: stream path"),
        ("[[sources]]\nstream = \"a/b\"\nurl = \"http://a:hunter2@h/\"\n", "must begin with rtsp://"),
        (&"[[sources]]\nstream = \"a/b\"\nurl = \"rtsp://a:hunter2@h/\"\n".repeat(2), "two sources"),
    ] {
        let all = complaints(|l| l.file_text("hw.toml", text));
        assert!(all.len() == 1 && all[0].contains(word), "{all:?}");
        assert!(!all[0].contains("hunter2"), "{all:?}");
    }
    let all = complaints(|l| l.set("destinations=rtmp://h/live/hunter2"));
    assert!(all.len() == 1 && !all[0].contains("hunter2"), "{all:?}");
}

//! The command line as a whole: every known name, the orchestrator's arguments, the grammar, the environment,
//! files.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use damselfly_config::{
    Action, ClusterMode, Compression, Config, ConfigError, Effect, Exposure, Kind, Parsed, Port, ROWS,
    Settings, Units,
};

/// Parses with these arguments, variables and files, and nothing else.
fn parse_all(args: &[&str], env: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Parsed, ConfigError> {
    let args = std::iter::once("damselfly").chain(args.iter().copied()).map(OsString::from);
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::from_args(args, env, &|path: &Path| {
        let file = files.iter().find(|(name, _)| path.as_os_str() == *name);
        file.map(|(_, text)| text.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn parse(args: &[&str]) -> Parsed {
    parse_all(args, &[], &[]).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// The warnings of every version: without those about what this one does not have yet.
fn lasting(parsed: &Parsed) -> Vec<&str> {
    parsed.warnings.iter().map(String::as_str).filter(|line| !line.ends_with(" in this version")).collect()
}

fn refusal(args: &[&str]) -> String {
    match parse_all(args, &[], &[]) {
        Ok(parsed) => panic!("{args:?} was accepted: {:?}", parsed.action),
        Err(error) => error.to_string(),
    }
}

/// The value CONFIG GET would show right after the start.
fn value(parsed: &Parsed, name: &str) -> String {
    let found = Settings::new(&parsed.config.initial).get_matching(&[name.as_bytes()]);
    found.into_iter().next().unwrap_or_else(|| panic!("CONFIG does not know {name}")).1
}

#[test]
fn names_are_unique_and_legal() {
    let mut seen = HashSet::new();
    for row in ROWS {
        for name in std::iter::once(&row.name).chain(row.aliases) {
            assert!(seen.insert(name.to_ascii_lowercase()), "{name} is there twice");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
            assert!(
                !name.starts_with('_') && !name.ends_with('_') && !name.contains("__") && name.len() <= 42
            );
        }
    }
    // A name that is the negation of another would change what --noname means.
    for name in seen.iter().filter_map(|name| name.strip_prefix("no")) {
        assert!(!seen.contains(name), "no{name} hides the negation of {name}");
    }
}

#[test]
fn rows_say_what_they_do() {
    for row in ROWS {
        assert_eq!(
            matches!(row.effect, Effect::Used | Effect::NotYet),
            !row.help.is_empty(),
            "{}: help is for what has an effect, now or later",
            row.name
        );
        if !row.help.is_empty() {
            assert!(row.help.ends_with('.') && row.help.len() <= 120, "{}: one sentence, one line", row.name);
        }
        assert!(row.kind.parse(row.default, Units::Flag).is_ok(), "{}: the default is a value", row.name);
        // What CONFIG does not know of is used up at the start, or hidden in Dragonfly, too.
        let may_hide = row.area.title() == "Starting" || row.name.starts_with("s3_");
        assert!(row.effect != Effect::Used || row.exposure != Exposure::Hidden || may_hide, "{}", row.name);
    }
}

/// The shapes clap checks only in debug builds, and that the defaults make a start.
#[test]
fn defaults_start() {
    let parsed = parse(&[]);
    assert_eq!(parsed.action, Action::Run);
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let config = parsed.config;
    assert_eq!((config.port, config.http_ports, config.admin_ports), (Port::Fixed(6379), vec![8080], vec![]));
    assert_eq!((config.databases, config.threads), (16, 0));
    assert_eq!((config.compression, config.cluster_mode), (Compression::Lz4, ClusterMode::Off));
    assert!(config.http_on_port && config.df_snapshot_format && config.replicaof.is_none());
}

/// Whatever a manifest sets that some release of the replaced server knows, this one starts, in every
/// spelling.
#[test]
fn every_name_in_the_field_is_known() {
    let names: Vec<&str> = include_str!("names.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert!(names.len() > 240);
    for name in names {
        let row = ROWS.iter().find(|row| row.name == name || row.aliases.contains(&name));
        let row = row.unwrap_or_else(|| panic!("--{name} is unknown"));
        if matches!(name, "help" | "helpfull" | "version") {
            continue;
        }
        for spelled in [name.to_owned(), name.replace('_', "-")] {
            let parsed = parse(&[&format!("--{spelled}={}", row.default)]);
            let warning = format!("--{} is accepted for compatibility and has no effect", row.name);
            assert_eq!(
                parsed.warnings.contains(&warning),
                row.effect == Effect::Ignored,
                "{:?}",
                parsed.warnings
            );
            if row.kind.is_switch() {
                for switch in [format!("--{spelled}"), format!("-no{spelled}")] {
                    match parse_all(&[&switch], &[], &[]) {
                        Ok(parsed) => assert!(parsed.warnings.len() <= 1, "{:?}", parsed.warnings),
                        Err(error) => assert!(name == "tls", "{error}"),
                    }
                }
            }
        }
    }
}

/// What the operator passes, in its order, with each optional group present or not: 2^9 command lines, the
/// password in the environment or not. All start but those where TLS has nobody to let in.
#[test]
fn the_operators_arguments() {
    let fixed = [
        "--alsologtostderr",
        "--break_replication_on_master_restart=true",
        "--primary_port_http_enabled=false",
        "--admin_port=9999",
        "--admin_nopass",
    ];
    let tls = [
        "--no_tls_on_admin_port",
        "--tls",
        "--tls_cert_file=/etc/dragonfly-tls/tls.crt",
        "--tls_key_file=/etc/dragonfly-tls/tls.key",
    ];
    let groups: [&[&str]; 8] = [
        &[
            "--vmodule=replica=1,server_family=1",
            "--proactor_threads=2",
            "--cache_mode=true",
            "--maxmemory=1610612736",
        ],
        &["--memcached_port=11211"],
        &["--aclfile=/var/lib/dragonfly/dragonfly.acl"],
        &["--tiered_prefix=/dragonfly/tiering/vol"],
        &["--dir=/dragonfly/snapshots"],
        &["--snapshot_cron=*/5 * * * *"],
        &tls,
        &["--tls_ca_cert_file=/etc/dragonfly/tls/ca.crt"],
    ];
    for chosen in 0..1usize << 9 {
        let has = |group: usize| chosen >> group & 1 == 1;
        let mut args = fixed.to_vec();
        for (_, group) in groups.iter().enumerate().filter(|(index, _)| has(*index)) {
            args.extend(*group);
        }
        let mut env =
            vec![("HEALTHCHECK_PORT", "9999"), ("PATH", "/bin"), ("KUBERNETES_PORT", "tcp://10.0.0.1:443")];
        if has(8) {
            env.push(("DFLY_requirepass", "p4ss=word"));
        }
        let parsed = parse_all(&args, &env, &[]);
        if has(6) && !has(2) && !has(7) && !has(8) {
            assert!(parsed.unwrap_err().to_string().starts_with("--tls needs to know whom to let in"));
            continue;
        }
        let parsed = parsed.unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let config = &parsed.config;
        assert_eq!(parsed.action, Action::Run);
        assert_eq!((config.port, &*config.admin_ports), (Port::Fixed(6379), &[9999][..]));
        assert!(config.admin_nopass && config.break_replication_on_master_restart && !config.http_on_port);
        assert_eq!(value(&parsed, "maxmemory_policy") != "noeviction", has(0));
        assert_eq!(value(&parsed, "maxmemory"), if has(0) { "1610612736" } else { "0" });
        assert_eq!(config.memcached_port, has(1).then_some(11211));
        assert_eq!(value(&parsed, "aclfile").is_empty(), !has(2));
        assert_eq!(config.dir, if has(4) { "/dragonfly/snapshots" } else { "" });
        assert_eq!(value(&parsed, "snapshot_cron"), if has(5) { "*/5 * * * *" } else { "" });
        assert_eq!(
            (config.no_tls_on_admin_port, &*value(&parsed, "tls")),
            (has(6), if has(6) { "true" } else { "false" })
        );
        assert_eq!(value(&parsed, "requirepass"), if has(8) { "p4ss=word" } else { "" });
        assert_eq!(
            lasting(&parsed).len(),
            usize::from(has(0)) + usize::from(has(3)),
            "{:?}",
            parsed.warnings
        );
    }
}

/// A manifest written for another server altogether: a second admin port, a metrics port, the old schedule.
#[test]
fn a_manifest_that_the_replaced_server_refuses() {
    let parsed = parse(&[
        "--alsologtostderr",
        "--primary_port_http_enabled=false",
        "--admin_port=9999",
        "--admin_nopass",
        "--admin_port=6380",
        "--metrics_port=6379",
        "--save_schedule=*:30",
        "--logtostderr",
        "--dir=/data",
        "--dir=/data",
        "--cluster_mode=emulated",
        "--default_lua_flags=allow-undeclared-keys",
        "--dbfilename=dump",
    ]);
    let config = &parsed.config;
    assert_eq!(config.admin_ports, [9999, 6380]);
    assert!(config.http_on_port, "--metrics_port names the port for clients");
    assert_eq!(config.http_ports, [8080]);
    assert_eq!(value(&parsed, "snapshot_cron"), "30 * * * *");
    assert_eq!(config.cluster_mode, ClusterMode::Emulated);
    assert!(config.default_lua_flags.allow_undeclared_keys && !config.default_lua_flags.legacy_float);
    assert_eq!(
        lasting(&parsed),
        [
            "--default_lua_flags is accepted for compatibility and has no effect",
            "--save_schedule is deprecated; using --snapshot_cron='30 * * * *' instead",
            "--admin_port was given several times; listening on all of 9999, 6380",
        ]
    );
}

#[test]
fn old_schedules() {
    for (schedule, cron) in [
        ("*:*", "* * * * *"),
        ("06:00", "0 6 * * *"),
        ("0?:*5", "5,15,25,35,45,55 0,1,2,3,4,5,6,7,8,9 * * *"),
        ("2[0-9]:00", "0 20,21,22,23 * * *"),
        ("25:00", ""),
        ("daily", ""),
        ("", ""),
    ] {
        let parsed = parse(&[&format!("--save_schedule={schedule}")]);
        assert_eq!(value(&parsed, "snapshot_cron"), cron, "{schedule}");
        assert_eq!(parsed.warnings.is_empty(), schedule.is_empty());
    }
    let parsed = parse(&["--save_schedule=*:*", "--snapshot_cron=0 * * * *"]);
    assert_eq!(value(&parsed, "snapshot_cron"), "0 * * * *");
    assert_eq!(lasting(&parsed), ["--save_schedule is ignored, as --snapshot_cron is set"]);
}

/// Every form of a flag, with one dash and two, dashes and underscores.
#[test]
fn the_grammar() {
    let databases = |args: &[&str]| parse(args).config.databases;
    for args in [
        &["--dbnum=5"][..],
        &["--dbnum", "5"],
        &["-dbnum=5"],
        &["-dbnum", "5"],
        &["--databases", "5"],
        &["--dbnum=3", "--databases=5"],
        &["--dbnum=5", "--"],
    ] {
        assert_eq!(databases(args), 5, "{args:?}");
    }
    let nopass = |args: &[&str]| parse(args).config.admin_nopass;
    for on in ["true", "yes", "1", "t", "y", "TRUE", "Y"] {
        assert!(nopass(&[&format!("--admin_nopass={on}")]));
    }
    for off in ["false", "no", "0", "f", "n", "FALSE", "N"] {
        assert!(!nopass(&["--admin_nopass", &format!("--admin-nopass={off}")]));
    }
    assert!(
        nopass(&["--admin_nopass"])
            && nopass(&["-admin-nopass"])
            && nopass(&["--noadmin_nopass", "--admin_nopass"])
    );
    assert!(
        !nopass(&["--admin_nopass", "--noadmin_nopass"]) && !nopass(&["--admin_nopass", "-noadmin-nopass"])
    );
    assert!(parse(&["--no_tls_on_admin_port"]).config.no_tls_on_admin_port);
    assert!(!parse(&["--no_tls_on_admin_port", "--nono_tls_on_admin_port"]).config.no_tls_on_admin_port);
    assert_eq!(parse(&["--port", "-1"]).config.port, Port::Any);
    assert_eq!(parse(&["--port=0", "--unixsocket=/s"]).config.port, Port::Off);
    // A value may be empty, contain spaces and equals signs, or begin with a dash.
    assert_eq!(value(&parse(&["--dbfilename="]), "dbfilename"), "");
    assert_eq!(value(&parse(&["--dbfilename", ""]), "dbfilename"), "");
    assert_eq!(value(&parse(&["--requirepass=a b=c"]), "requirepass"), "a b=c");
    assert_eq!(value(&parse(&["--requirepass", "-secret"]), "requirepass"), "-secret");
    assert_eq!(value(&parse(&["--requirepass=--port=1"]), "requirepass"), "--port=1");
    assert_eq!(value(&parse(&["--maxmemory=1.25GiB"]), "maxmemory"), "1342177280");
    assert_eq!(value(&parse(&["--maxmemory=1g"]), "maxmemory"), "1073741824", "flags count in 1024s");
}

#[test]
fn what_is_refused() {
    for (args, error) in [
        (&["--prot=1"][..], "unknown flag --prot (command line); nearest: --port"),
        (
            &["--threads=4"],
            "unknown flag --threads (command line); nearest: --proactor_threads, --conn_io_threads, --epoll_file_threads",
        ),
        (&["--maxmemroy", "1g"], "unknown flag --maxmemroy (command line); nearest: --maxmemory"),
        (&["--xyzzy"], "unknown flag --xyzzy (command line)"),
        (&["--nodbnum"], "unknown flag --nodbnum (command line); nearest: --dbnum"),
        (&["--notls=true"], "unknown flag --notls (command line); nearest: --tls"),
        (&["--=5"], "unknown flag -- (command line)"),
        (&["--PORT=1"], "unknown flag --PORT (command line); nearest: --port"),
        (&["extra"], "'extra' is not a flag, and positional arguments are not supported"),
        (&["--dbnum=5", "-"], "'-' is not a flag, and positional arguments are not supported"),
        (&["--", "--dbnum=5"], "'--dbnum=5' is not a flag, and positional arguments are not supported"),
        (&["---port=5"], "'---port=5' is not a flag, and positional arguments are not supported"),
        (
            &["--admin_nopass", "false"],
            "'false' is not a flag, and positional arguments are not supported; a switch takes its value as --admin_nopass=false",
        ),
        (&["--dir"], "--dir needs a value (command line)"),
        (&["--dir", "--port=5"], "--dir needs a value (command line)"),
        (&["--port=abc"], "--port=abc: argument couldn't be parsed into an integer"),
        (
            &["--port=5", "--port=70000", "--port=5"],
            "--port=70000: argument must be between -1 and 65535 inclusive",
        ),
        (&["--admin_nopass=maybe"], "--admin_nopass=maybe: argument must be 'true' or 'false'"),
        (&["--maxmemory=lots"], "--maxmemory=lots: argument must be a memory value"),
        (&["--snapshot_cron=* *"], "--snapshot_cron=* *: cron expression: must have five fields"),
        (
            &["--snapshot_cron='0 * * * *'"],
            "--snapshot_cron='0 * * * *': cron expression: must not be quoted",
        ),
        (&["--dbfilename=\"dump\""], "--dbfilename=\"dump\": argument must not be quoted"),
        (&["--dbfilename=a/b"], "--dbfilename=a/b: argument must be a file name without a directory"),
        (
            &["--dbfilename=dump.rdb"],
            "--dbfilename=dump.rdb has an extension, which --df_snapshot_format adds itself",
        ),
        (
            &["--dbfilename=dump.bin", "--nodf_snapshot_format"],
            "--dbfilename=dump.bin may only end in .rdb, or have no extension",
        ),
        (&["--replicaof=host"], "--replicaof=host: argument must be host:port"),
        (&["--unixsocketperm=999"], "--unixsocketperm=999: argument must be permissions in octal"),
        (&["--port=0"], "--port=0 leaves clients no way in without --unixsocket"),
        (&["--tls"], "--tls needs to know whom to let in"),
        (&["--tls", "--requirepass=x"], "--tls needs --tls_cert_file and --tls_key_file"),
        (&["--appendonly=yes"], "--appendonly=yes: there is no append-only file"),
        (&["--command_alias=a"], "--command_alias has 'a', which is not alias=command"),
        (&["--default_lua_flags=fast"], "--default_lua_flags has 'fast', which is not allow-undeclared-keys"),
        (&["--memcached_port=8081", "--http_port=8081"], "--memcached_port cannot be an HTTP port as well"),
    ] {
        let found = refusal(args);
        assert!(found.starts_with(error), "{args:?}:\n{found}\n{error}");
    }
    assert_eq!(
        refusal(&["--prot=1", "--adminport=2"]),
        "unknown flag --prot (command line); nearest: --port\n\
         unknown flag --adminport (command line); nearest: --admin_port"
    );
}

#[test]
fn values_together() {
    assert_eq!(lasting(&parse(&["--dbfilename=dump.rdb", "--df_snapshot_format=false"])).len(), 0);
    let config = parse(&["--command_alias=foo=get, bar=set", "--restricted_commands=flushall,Debug"]).config;
    assert_eq!(config.command_aliases, [("FOO".into(), "GET".into()), ("BAR".into(), "SET".into())]);
    assert_eq!(config.restricted_commands, ["FLUSHALL", "DEBUG"]);
    let master = parse(&["--replicaof=[fd00::1]:6379"]).config.replicaof.unwrap();
    assert_eq!((&*master.host, master.port), ("fd00::1", 6379));
    assert_eq!(parse(&["--unixsocketperm=770"]).config.unixsocketperm, Some(0o770));
    assert_eq!(parse(&["--compression_mode=2"]).config.compression, Compression::Zstd);
    assert_eq!(parse(&["--bind=127.0.0.1 ::1"]).config.bind, ["127.0.0.1", "::1"]);
    // 0 takes back the admin ports before it.
    assert_eq!(parse(&["--admin_port=9999", "--admin_port=0"]).config.admin_ports, []);
    assert_eq!(parse(&["--admin_port=9999", "--admin_port=9999"]).config.admin_ports, [9999]);
    // The default port for HTTP gives way, a chosen one does not.
    let parsed = parse(&["--port=8080", "--primary_port_http_enabled=false"]);
    assert_eq!((parsed.config.http_on_port, parsed.config.http_ports.len()), (false, 0));
    assert_eq!(parsed.warnings, ["--http_port is off, as its default 8080 is in use"]);
    let config = parse(&["--port=8080", "--primary_port_http_enabled=false", "--http_port=8080"]).config;
    assert_eq!((config.http_on_port, config.http_ports.len()), (true, 0));
    let config = parse(&["--admin_port=9999", "--http_port=0", "--metrics_port=9100"]).config;
    assert_eq!(config.http_ports, [9100]);
    // Evicting is what cache_mode says, unless a policy is named.
    assert_eq!(value(&parse(&["--cache_mode"]), "maxmemory-policy"), "allkeys-lru");
    assert_eq!(
        value(&parse(&["--cache_mode", "--maxmemory-policy=noeviction"]), "maxmemory-policy"),
        "noeviction"
    );
    // Small machines are welcome.
    assert_eq!(value(&parse(&["--maxmemory=64mb", "--proactor_threads=8"]), "maxmemory"), "67108864");
}

#[test]
fn without_effect_but_with_a_warning() {
    let warnings = |args: &[&str]| parse(args).warnings;
    assert_eq!(
        warnings(&["--pipeline_squash=10", "--pipeline_squash=11"]),
        ["--pipeline_squash is accepted for compatibility and has no effect"]
    );
    // What it asks for is what happens anyway.
    assert_eq!(
        warnings(&["--logtostderr", "--tcp_nodelay", "--version_check=false", "--force_epoll"]).len(),
        0
    );
    assert_eq!(
        warnings(&["--noforce_epoll"]),
        [
            "--force_epoll=false is accepted for compatibility; the server always behaves as --force_epoll=true"
        ]
    );
}

#[test]
fn tolerated_unknowns() {
    let parsed = parse(&["--frobnicate=5", "--undefok=frobnicate, turbo", "--noturbo"]);
    assert_eq!(
        parsed.warnings,
        [
            "--frobnicate is unknown and tolerated, as --undefok lists it",
            "--noturbo is unknown and tolerated, as --undefok lists it",
        ]
    );
    assert_eq!(parse(&["--frobnicate", "5", "--undefok=frobnicate"]).warnings.len(), 1);
    assert!(refusal(&["--undefok=a", "--b"]).starts_with("unknown flag --b"));
}

#[test]
fn the_environment() {
    let run = |args: &[&str], env: &[(&str, &str)]| parse_all(args, env, &[]);
    let parsed =
        run(&[], &[("DFLY_port", "7000"), ("DFLY_admin-nopass", "yes"), ("OTHER_port", "1")]).unwrap();
    assert_eq!((parsed.config.port, parsed.config.admin_nopass), (Port::Fixed(7000), true));
    assert_eq!(parsed.warnings.len(), 0);
    // The command line wins, whatever its spelling, and also for the flag that adds up.
    let parsed =
        run(&["--databases=3", "--admin_port=2"], &[("DFLY_dbnum", "4"), ("DFLY_admin_port", "1")]).unwrap();
    assert_eq!((parsed.config.databases, &*parsed.config.admin_ports), (3, &[2][..]));
    assert!(run(&["--port=1"], &[("DFLY_port", "nonsense")]).is_ok(), "not looked at");

    let error = run(&[], &[("DFLY_port", "abc")]).unwrap_err().to_string();
    assert_eq!(error, "environment variable DFLY_port=abc: argument couldn't be parsed into an integer");
    let error = run(&[], &[("DFLY_PASSWORD", "abc")]).unwrap_err().to_string();
    assert!(error.starts_with("DFLY_PASSWORD is no longer read") && !error.contains("abc"));

    let parsed = run(&[], &[("DFLY_nosuch", "1"), ("DFLY_DEV_ENV", "1"), ("DFLY_", "1")]).unwrap();
    assert_eq!(
        parsed.warnings,
        [
            "environment variable DFLY_ sets no known flag; ignored",
            "environment variable DFLY_nosuch sets no known flag; ignored",
        ]
    );
    // What Kubernetes injects for Services called dfly and dfly-cache.
    let links = [
        ("DFLY_CACHE_PORT", "tcp://10.0.0.1:6379"),
        ("DFLY_CACHE_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ("DFLY_CACHE_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("DFLY_CACHE_PORT_6379_TCP_PORT", "6379"),
        ("DFLY_CACHE_PORT_6379_TCP_PROTO", "tcp"),
        ("DFLY_CACHE_SERVICE_HOST", "10.0.0.1"),
        ("DFLY_CACHE_SERVICE_PORT", "6379"),
        ("DFLY_CACHE_SERVICE_PORT_REDIS", "6379"),
        ("DFLY_PORT", "tcp://10.0.0.1:6379"),
        ("DFLY_SERVICE_HOST", "10.0.0.1"),
    ];
    let parsed = run(&[], &links).unwrap();
    assert_eq!(parsed.config.port, Port::Fixed(6379));
    assert_eq!(parsed.warnings.len(), 1);
    assert!(parsed.warnings[0].starts_with("ignored variables that describe Services: DFLY_CACHE_PORT, "));
}

#[test]
fn flag_files() {
    let text = "# comment\n\n--port=7000\n  -dbnum 5 \n--admin_nopass\nignored # no\n";
    let run = |args: &[&str], files: &[(&str, &str)]| parse_all(args, &[], files);
    let error = run(&["--flagfile=/f"], &[("/f", text)]).unwrap_err().to_string();
    assert_eq!(error, "flag file, /f:6: 'ignored # no' is not a flag");

    let good = "# comment\n\n--port=7000\r\n  -dbnum 5 \n--admin_nopass\n--notls\n--requirepass=\"a b\"\n--snapshot_cron=0 1 * * *";
    let parsed = run(&["--flagfile=/f"], &[("/f", good)]).unwrap();
    assert_eq!((parsed.config.port, parsed.config.databases), (Port::Fixed(7000), 5));
    assert!(parsed.config.admin_nopass);
    assert_eq!(value(&parsed, "requirepass"), "\"a b\"", "nothing is unquoted");
    assert_eq!(value(&parsed, "snapshot_cron"), "0 1 * * *");
    // The place of the file counts: the last one wins.
    let port = |args: &[&str]| run(args, &[("/f", good)]).unwrap().config.port;
    assert_eq!(port(&["--port=1", "--flagfile=/f"]), Port::Fixed(7000));
    assert_eq!(port(&["--flagfile", "/f", "--port=1"]), Port::Fixed(1));

    for (file, error) in [
        (
            "--snapshot_cron=\"0 * * * *\"",
            "--snapshot_cron=\"0 * * * *\" (/f:1): cron expression: must not be quoted",
        ),
        ("#\n--dbfilename 'dump'", "--dbfilename='dump' (/f:2): argument must not be quoted"),
        ("--port=x", "--port=x (/f:1): argument couldn't be parsed into an integer"),
        ("--prot=1", "unknown flag --prot (/f:1); nearest: --port"),
        ("--dir", "--dir needs a value (/f:1)"),
        ("--notls true", "flag file, /f:1: --notls takes no value"),
        ("--flagfile=/g", "flag file /g: "),
        ("--flagfile=/f", "flag file, /f:1: /f is one flag file too many; do they name each other?"),
    ] {
        let found = run(&["--flagfile=/f"], &[("/f", file)]).unwrap_err().to_string();
        assert!(found.starts_with(error), "{file}: {found}");
    }
    // Wide rather than deep is bounded as well.
    let wide = ["/e"; 100].join(",");
    assert!(run(&["--flagfile", &wide], &[("/e", "")]).unwrap_err().to_string().contains("too many"));
    let huge = "#".repeat(2 << 20);
    assert!(run(&["--flagfile=/h"], &[("/h", &huge)]).unwrap_err().to_string().contains("is longer than"));
    // Files and variables combine, and the command line still wins.
    let nested = [("/a", "--flagfile=/b\n--hz=7"), ("/b", "--hz=8\n--dbnum=9")];
    let parsed = parse_all(&["--dbnum=2"], &[("DFLY_flagfile", "/a")], &nested).unwrap();
    assert_eq!((&*value(&parsed, "hz"), parsed.config.databases), ("7", 2));
}

#[test]
fn help_and_version() {
    let Action::PrintHelp(help) = parse(&["--help"]).action else { panic!("no help") };
    let Action::PrintHelp(full) = parse(&["--helpfull"]).action else { panic!("no help") };
    for row in ROWS {
        let entry = format!("--{}=<", row.name);
        assert!(full.contains(&entry), "{entry}");
        assert_eq!(help.contains(&entry), row.effect == Effect::Used, "{entry}");
        assert!(!help.contains(&entry) || help.contains(row.help), "{entry}");
        assert!(!matches!(row.kind, Kind::Secret) || row.default.is_empty());
    }
    for heading in ["Network and connections:", "Snapshots:", "Replication:", "Slow log, latency and events:"]
    {
        assert!(full.contains(heading), "{heading}");
    }
    // Help is for those whose command line is wrong, too.
    assert!(matches!(parse(&["-h", "--prot=1"]).action, Action::PrintHelp(_)));
    assert_eq!(parse(&["--help", "--nohelp"]).action, Action::Run);
    let Action::PrintVersion(version) = parse(&["--version", "--help"]).action else { panic!("no version") };
    assert!(version.starts_with(&format!("damselfly v{}-", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.lines().count() == 2);
}

/// Words nobody would write: an answer or an error, never a panic.
#[test]
fn arbitrary_words() {
    let pieces = [
        "--", "-", "=", "no", "port", "tls", "h", "flagfile", "undefok", "0", ",", " ", "\0", "é", "\"", "[",
        "dir",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |len: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % len as u64) as usize
    };
    for _ in 0..3_000 {
        let words: Vec<String> = (0..next(4) + 1)
            .map(|_| (0..next(5) + 1).map(|_| pieces[next(pieces.len())]).collect())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Err(error) = parse_all(&words, &[("DFLY_dir", "x")], &[]) {
            assert!(!error.to_string().is_empty());
        }
    }
}

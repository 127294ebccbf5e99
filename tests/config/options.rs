//! `[backend.options]`: what the plugin is told, and what is said of mistakes in it.

use super::*;

#[test]
fn storage_is_swapped_by_one_line_with_options_in_a_table_of_the_plugins_name() {
    let file = |plugin: &str| {
        format!("[backend]\nplugin = {plugin:?}\n[backend.options.sqlite]\npath = \"/var/lib/services.db\"\n")
    };
    let sqlite = Place::with(&file("sqlite")).show(&[], &[]);
    assert_eq!(sqlite["config"]["backend"]["options"], json!({ "path": "/var/lib/services.db" }));
    let memory = Place::with(&file("memory")).show(&[], &[]);
    assert_eq!(memory["config"]["backend"]["options"], json!({}));
    assert_eq!(memory["unused"], json!(["backend.options.sqlite.path"]));
    let by_path = Place::with(&file("/opt/libregistry_sqlite.so")).show(&[], &[]);
    assert_eq!(by_path["config"]["backend"]["options"], json!({ "path": "/var/lib/services.db" }));

    let output = check_with_plugins(&Place::with(&file("memory")), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected =
        "backend.options.sqlite.path (registry.toml, line 4) has no effect while backend.plugin is \"memory\"";
    assert_eq!(text(&output.stderr), format!("registry: {expected}\n"));
}

#[test]
fn a_slip_in_the_name_of_a_plugins_table_is_told() {
    for (table, told) in [
        ("sqlit", ": did you mean [backend.options.sqlite]?\n"),
        ("memroy", ": did you mean [backend.options.memory]?\n"),
        ("consul", "; no plugin \"consul\" is found here, `registry plugin list` shows those that are\n"),
    ] {
        let file = format!("[backend.options.{table}]\npath = \"a.db\"\n");
        let output = check_with_plugins(&Place::with(&file), &[]);
        assert!(output.status.success() && text(&output.stderr).ends_with(told), "{table}: {}", text(&output.stderr));
    }
}

#[test]
fn check_says_where_an_option_stands_that_the_plugin_refuses() {
    for (file, place) in [
        ("[backend.options]\npth = \"a.db\"\n", "registry.toml, line 2"),
        ("\n\n[backend.options.sqlite]\npath = 7\n", "registry.toml, line 4"),
    ] {
        let output = check_with_plugins(&Place::with(file), &[]);
        assert_eq!(output.status.code(), Some(1));
        let refusal = text(&output.stderr);
        let start = format!("registry: [backend.options] for \"sqlite\" ({place}): ");
        assert!(refusal.starts_with(&start) && refusal.lines().count() == 1, "{refusal}");
    }
}

#[test]
fn a_flag_for_an_option_wins_over_the_plugins_table_in_the_file() {
    let place = Place::with("[backend.options]\npath = \"a\"\n[backend.options.sqlite]\npath = \"b\"\n");
    let options = |sets: &[&str]| place.show(sets, &[])["config"]["backend"]["options"].clone();
    assert_eq!(options(&[]), json!({ "path": "b" }));
    assert_eq!(options(&["backend.options.path=c"]), json!({ "path": "c" }));
}

#[test]
fn an_option_is_a_number_if_it_looks_like_one_unless_it_is_quoted_or_text_in_the_file() {
    let option = |place: &Place, sets: &[&str], environment: &[(&str, &str)]| {
        place.show(sets, environment)["config"]["backend"]["options"]["x"].clone()
    };
    let empty = Place::empty();
    assert_eq!(option(&empty, &["backend.options.x=123"], &[]), json!(123));
    assert_eq!(option(&empty, &["backend.options.x=true"], &[]), json!(true));
    assert_eq!(option(&empty, &["backend.options.x=\"123\""], &[]), json!("123"));
    assert_eq!(option(&empty, &["backend.options.x=/var/lib/services.db"], &[]), json!("/var/lib/services.db"));
    let text = Place::with("[backend.options]\nx = \"services.db\"\n");
    assert_eq!(option(&text, &["backend.options.x=123"], &[]), json!("123"));
    assert_eq!(option(&text, &[], &[("REGISTRY_BACKEND__OPTIONS__X", "2026")]), json!("2026"));
}

#[test]
fn check_asks_the_plugin_about_its_options() {
    let output = check_with_plugins(&Place::empty(), &["backend.options.pth=services.db"]);
    assert_eq!(output.status.code(), Some(1));
    let refusal = text(&output.stderr);
    assert!(refusal.contains("\"sqlite\"") && refusal.contains("\"pth\"") && refusal.contains("path"), "{refusal}");
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
}

#[test]
fn a_wrong_option_is_blamed_on_its_own_place_however_often_one_looks() {
    let moody = "[backend]\nplugin = \"moody\"\n[backend.options]\n";
    let start = "registry: [backend.options] for \"moody\"";
    let several = Place::with(&format!("{moody}outag = \"x\"\nbomb = false\nclos = \"calm\"\nbmob = true\n"));
    let right = Place::with(&format!("{moody}outage = \"x\"\nclose = \"calm\"\nbomb = false\n"));
    // Tables have no order in memory: what goes by theirs is right now and then.
    for _ in 0..8 {
        let told = text(&check_with_plugins(&several, &[]).stderr);
        let expected = format!("{start} (registry.toml, line 7): unknown option \"bmob\" (did you mean \"bomb\"?)");
        assert!(told.starts_with(&expected), "{told}");
        let told = text(&check_with_plugins(&several, &["backend.options.bad=1"]).stderr);
        assert!(told.starts_with(&format!("{start} (--set): unknown option \"bad\"")), "{told}");
        let told = text(&check_with_plugins(&right, &["backend.options.bomb=no"]).stderr);
        assert!(told.starts_with(&format!("{start} (--set): option \"bomb\"")), "{told}");
        let (plugins, name) = (plugin_dir(), "REGISTRY_BACKEND__OPTIONS__BOMB");
        let told =
            text(&right.run(&["config", "check", "-s", &plugins, "-s", "server.req_port=0"], &[(name, "no")]).stderr);
        assert!(told.contains(&format!("{start} ({name}): option \"bomb\"").replace("registry: ", "")), "{told}");
    }
}

#[test]
fn the_password_of_a_url_is_not_shown() {
    for (url, shown) in [
        ("postgres://mona:s3/cr@t@db:5432/registry", "postgres://mona:(secret)@db:5432/registry"),
        ("postgres://mona@db/registry", "postgres://mona@db/registry"),
        ("http://db:2379", "http://db:2379"),
    ] {
        let place = Place::with(&format!("[backend.options]\nurl = {url:?}\n"));
        assert_eq!(place.show(&[], &[])["config"]["backend"]["options"]["url"], shown);
        let text = text(&place.run(&["config", "show"], &[]).stdout);
        assert!(text.contains(&format!("url = {shown:?}")), "{text}");
    }
}

#[test]
fn a_secret_option_is_not_shown() {
    let place = Place::with("[backend]\nplugin = \"chaos\"\noptions.password = \"open sesame\"\n");
    for arguments in [&["config", "show"][..], &["config", "show", "--json"], &["plugin", "inspect", "chaos", "--json"]]
    {
        let output = place.run(&[arguments, &["--set", &plugin_dir()]].concat(), &[]);
        let shown = text(&output.stdout);
        assert!(output.status.success() && shown.contains("password"), "{arguments:?}: {shown}");
        assert!(!shown.contains("sesame") && !shown.contains("hunter2"), "{arguments:?}: {shown}");
    }
}

//! Keys that come and go, good files and bad ones.

use super::super::certificate::{public_text, secret_text};
use super::super::key::KeyPair;
use super::*;

fn put(directory: &Path, file: &str, text: &str) {
    fs::write(directory.join(file), text).unwrap();
}

fn nameless(keys: &KeyPair) -> String {
    format!("metadata\ncurve\n    public-key = \"{}\"\n", keys.public())
}

#[test]
fn a_directory_allows_those_whose_keys_are_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let [camera, stage, backup, stranger] = std::array::from_fn(|_| KeyPair::generate());
    put(directory.path(), "camera.key", &nameless(&camera));
    put(directory.path(), "b.key", &public_text(&stage, "stage 2"));
    // None of these are certificates of clients.
    put(directory.path(), "backup.key~", &nameless(&backup));
    put(directory.path(), "own.key_secret", &secret_text(&backup, "own"));
    put(directory.path(), "README", "the clients of this registry");
    let authorized = Authorized::load(directory.path()).unwrap();
    assert_eq!(authorized.name(camera.public()), Some("camera"));
    assert_eq!(authorized.name(stage.public()), Some("stage 2"));
    assert_eq!(authorized.name(backup.public()), None);
    assert_eq!(authorized.name(stranger.public()), None);
    assert_eq!(authorized.len(), 2);
    assert!(authorized.warnings().is_empty(), "{:?}", authorized.warnings());
}

#[test]
fn a_file_allows_all_that_are_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = std::array::from_fn(|_| KeyPair::generate());
    put(directory.path(), "clients", &(public_text(&one, "one") + &nameless(&two)));
    let authorized = Authorized::load(&directory.path().join("clients")).unwrap();
    assert_eq!(authorized.name(one.public()), Some("one"));
    assert_eq!(authorized.name(two.public()), Some("clients"));
    put(directory.path(), "alone.key", &nameless(&two));
    let authorized = Authorized::load(&directory.path().join("alone.key")).unwrap();
    assert_eq!((authorized.len(), authorized.name(two.public())), (1, Some("alone")));
}

#[test]
fn warns_of_what_should_not_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let authorized = Authorized::load(directory.path()).unwrap();
    assert!(authorized.is_empty() && authorized.warnings()[0].contains("no client can connect"));
    let keys = KeyPair::generate();
    put(directory.path(), "a.key", &secret_text(&keys, "a"));
    put(directory.path(), "b.key", &public_text(&keys, "b"));
    let authorized = Authorized::load(directory.path()).unwrap();
    assert_eq!(authorized.name(keys.public()), Some("a"));
    let [secret, twice] = authorized.warnings() else { panic!("{:?}", authorized.warnings()) };
    assert!(secret.contains("a.key") && secret.contains("secret key of \"a\""), "{secret}");
    assert!(twice.contains("b.key") && twice.contains("again"), "{twice}");
    assert!(!format!("{authorized:?}").contains(keys.secret().to_z85().as_str()));
}

/// What is new when a set is looked at again, if anything is.
fn look(authorized: &mut Authorized) -> Option<News> {
    let now = authorized.look_again()?;
    assert_eq!(now.problem_count(), now.problems().count());
    let news = now.news(authorized);
    *authorized = now;
    Some(news)
}

const NO_NEWS: News = News { problems: Vec::new(), warnings: Vec::new() };

#[test]
fn a_bad_file_is_named_and_the_others_are_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let good = KeyPair::generate();
    put(directory.path(), "good.key", &nameless(&good));
    put(directory.path(), "bad.key", "curve\n    public-key = \"too short\"\n");
    put(directory.path(), "worse.key", "\u{0}");
    fs::write(directory.path().join("binary.key"), [0xff, 0xfe]).unwrap();
    fs::create_dir(directory.path().join("directory.key")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling.key")).unwrap();
    let authorized = Authorized::load(directory.path()).unwrap();
    assert_eq!((authorized.len(), authorized.name(good.public())), (1, Some("good")));
    let problems: Vec<&str> = authorized.problems().collect();
    let [bad, binary, dangling, no_file, worse] = problems[..] else { panic!("{problems:?}") };
    assert!(bad.contains("bad.key: line 2: expected a key") && !bad.contains('\n'), "{bad}");
    assert!(binary.contains("cannot read") && binary.contains("binary.key"), "{binary}");
    assert!(dangling.contains("cannot read") && dangling.contains("dangling.key"), "{dangling}");
    assert!(no_file.contains("directory.key cannot be used: expected a directory with"), "{no_file}");
    assert!(worse.contains("worse.key: line 1"), "{worse}");
    assert!(authorized.look_again().is_none(), "nothing is read again, and nothing is told again");
    let error = Authorized::load(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent") && error.contains("expected a directory with"), "{error}");
}

#[test]
fn what_changes_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
    put(directory.path(), "one.key", &nameless(&one));
    let mut authorized = Authorized::load(directory.path()).unwrap();
    assert_eq!(look(&mut authorized), None);
    // Added.
    put(directory.path(), "two.key", &nameless(&two));
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!(look(&mut authorized), None);
    assert_eq!(authorized.len(), 2);
    // Another key of the same length, by rename, with the same time.
    let modified = fs::metadata(directory.path().join("two.key")).unwrap().modified().unwrap();
    put(directory.path(), "new", &nameless(&three));
    fs::File::options().write(true).open(directory.path().join("new")).unwrap().set_modified(modified).unwrap();
    fs::rename(directory.path().join("new"), directory.path().join("two.key")).unwrap();
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!((authorized.name(two.public()), authorized.name(three.public())), (None, Some("two")));
    // Removed.
    fs::remove_file(directory.path().join("one.key")).unwrap();
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!((authorized.name(one.public()), authorized.len()), (None, 1));
}

#[test]
fn a_bad_file_keeps_no_key_from_being_added_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
    put(directory.path(), "a.key", &nameless(&one));
    put(directory.path(), "c.key", &nameless(&two));
    let mut authorized = Authorized::load(directory.path()).unwrap();
    put(directory.path(), "b.key", "half a cert");
    let News { problems, .. } = look(&mut authorized).expect("a file was added");
    assert!(problems.len() == 1 && problems[0].contains("b.key: line 1"), "{problems:?}");
    assert_eq!(look(&mut authorized), None, "it is told of once");
    fs::remove_file(directory.path().join("a.key")).unwrap();
    put(directory.path(), "d.key", &nameless(&three));
    assert_eq!(look(&mut authorized), Some(NO_NEWS), "and not again when others change");
    assert_eq!([&one, &two, &three].map(|keys| authorized.name(keys.public())), [None, Some("c"), Some("d")]);
    put(directory.path(), "b.key", "half a cert, still");
    let News { problems, .. } = look(&mut authorized).expect("it has changed");
    assert!(problems.len() == 1 && problems[0].contains("b.key: line 1"), "{problems:?}");
    // A good one that is no certificate any more authorizes nobody.
    put(directory.path(), "c.key", "revoked");
    look(&mut authorized).expect("it has changed");
    assert_eq!((authorized.name(two.public()), authorized.len(), authorized.problems().count()), (None, 1, 2));
    put(directory.path(), "b.key", &nameless(&one));
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!((authorized.name(one.public()), authorized.problems().count()), (Some("b"), 1));
}

#[test]
fn a_file_that_the_system_does_not_let_us_read_holds_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let keys = KeyPair::generate();
    let path = directory.path().join("camera.key");
    put(directory.path(), "camera.key", &nameless(&keys));
    let mut authorized = Authorized::load(directory.path()).unwrap();
    fs::remove_file(&path).unwrap();
    // Not to be read by anybody, root included: a link that leads to itself.
    std::os::unix::fs::symlink("camera.key", &path).unwrap();
    let News { problems, .. } = look(&mut authorized).expect("it has changed");
    assert!(problems.len() == 1 && problems[0].contains("cannot read"), "{problems:?}");
    assert_eq!(authorized.name(keys.public()), Some("camera"));
    assert_eq!(look(&mut authorized), None, "it is tried again, and told of once");
    fs::remove_file(&path).unwrap();
    assert_eq!(look(&mut authorized).map(|news| news.problems), Some(Vec::new()));
    assert_eq!(authorized.name(keys.public()), None);
}

#[test]
fn keys_stay_as_they_were_while_the_directory_is_away_or_the_one_file_is_bad() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, other] = std::array::from_fn(|_| KeyPair::generate());
    let path = directory.path().join("clients");
    fs::create_dir(&path).unwrap();
    put(&path, "one.key", &nameless(&keys));
    let mut authorized = Authorized::load(&path).unwrap();
    fs::rename(&path, directory.path().join("away")).unwrap();
    let News { problems, .. } = look(&mut authorized).expect("it is away");
    assert!(problems.len() == 1 && problems[0].contains("clients stay as they were"), "{problems:?}");
    assert_eq!(look(&mut authorized), None);
    assert_eq!(authorized.name(keys.public()), Some("one"));
    fs::rename(directory.path().join("away"), &path).unwrap();
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!((authorized.name(keys.public()), authorized.problems().count()), (Some("one"), 0));
    // One file.
    let mut authorized = Authorized::load(&path.join("one.key")).unwrap();
    put(&path, "one.key", &(nameless(&other) + "nonsense"));
    let News { problems, .. } = look(&mut authorized).expect("it has changed");
    assert!(problems.len() == 1 && problems[0].contains("one.key: line 4"), "{problems:?}");
    assert_eq!(look(&mut authorized), None);
    assert_eq!((authorized.name(keys.public()), authorized.name(other.public())), (Some("one"), None));
    put(&path, "one.key", &nameless(&other));
    assert_eq!(look(&mut authorized), Some(NO_NEWS));
    assert_eq!((authorized.name(keys.public()), authorized.name(other.public())), (None, Some("one")));
}

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{Change, WatchOptions, Watcher};

const PATIENCE: Duration = Duration::from_secs(20);

/// Without the poll, so that a test passes by events alone.
fn events_only() -> WatchOptions {
    WatchOptions {
        poll: Duration::from_secs(3600),
        ..WatchOptions::default()
    }
}

fn dir() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

async fn start(paths: &[&Path], options: WatchOptions) -> (Watcher, Receiver<Change>) {
    Watcher::start(paths.iter().map(PathBuf::from).collect(), options)
        .await
        .unwrap()
}

async fn next(changes: &mut Receiver<Change>) -> Change {
    timeout(PATIENCE, changes.recv())
        .await
        .expect("a change in time")
        .expect("a living watcher")
}

/// Waits for a change after which `done` holds.
async fn until(changes: &mut Receiver<Change>, mut done: impl FnMut() -> bool) {
    while next(changes).await.paths.is_empty() || !done() {}
}

/// Proves that nothing before `write` was reported: the next change is exactly that of the marker file.
async fn only(changes: &mut Receiver<Change>, marker: &Path) {
    fs::write(marker, "marker").unwrap();
    assert_eq!(next(changes).await.paths, [marker]);
}

fn rename_over(file: &Path, text: &str) {
    let new = file.with_extension("tmp");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// What kubelet does: a new directory, then `..data` renamed over.
fn swap(dir: &Path, version: usize, text: &str) {
    let name = format!("..version{version}");
    fs::create_dir(dir.join(&name)).unwrap();
    fs::write(dir.join(&name).join("forebay.yaml"), text).unwrap();
    let old = fs::read_link(dir.join("..data")).ok();
    symlink(&name, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).unwrap();
    }
}

#[tokio::test]
async fn every_way_of_writing_a_file_is_seen_within_250_ms() {
    let (_keep, dir) = dir();
    let file = dir.join("forebay.yaml");
    fs::write(&file, "0").unwrap();
    let (watcher, mut changes) = start(&[&file], events_only()).await;
    assert_eq!(watcher.fallback(), None);
    let link_target = dir.join("target.yaml");
    let ways: [(&str, &dyn Fn()); 5] = [
        ("in place", &|| fs::write(&file, "1").unwrap()),
        ("in place, same size", &|| fs::write(&file, "2").unwrap()),
        ("rename over", &|| rename_over(&file, "3")),
        ("delete and create", &|| {
            fs::remove_file(&file).unwrap();
            fs::write(&file, "4").unwrap();
        }),
        ("turned into a symlink", &|| {
            fs::write(&link_target, "5").unwrap();
            fs::remove_file(&file).unwrap();
            symlink("target.yaml", &file).unwrap();
        }),
    ];
    for (way, write) in ways {
        write();
        let written = Instant::now();
        assert_eq!(next(&mut changes).await.paths, [file.as_path()], "{way}");
        assert!(
            written.elapsed() >= Duration::from_millis(90),
            "{way}: no debounce"
        );
        // 250 ms are the goal; a busy machine gets more.
        assert!(
            written.elapsed() < Duration::from_secs(1),
            "{way}: {:?}",
            written.elapsed()
        );
    }
    fs::write(&link_target, "6").unwrap();
    assert_eq!(next(&mut changes).await.paths, [file]);
}

#[tokio::test]
async fn a_config_map_swap_is_seen_through_a_file_and_through_its_directory() {
    let (_keep, dir) = dir();
    let file = dir.join("forebay.yaml");
    swap(&dir, 0, "a");
    symlink("..data/forebay.yaml", &file).unwrap();
    let (_file, mut by_file) = start(&[&file], events_only()).await;
    let (_dir, mut by_dir) = start(&[&dir], events_only()).await;
    for version in 1..4 {
        swap(&dir, version, &version.to_string());
        assert_eq!(next(&mut by_file).await.paths, [file.as_path()]);
        assert_eq!(next(&mut by_dir).await.paths, [file.as_path()]);
    }
}

#[tokio::test]
async fn after_1000_fast_swaps_the_last_content_is_reported() {
    let (_keep, dir) = dir();
    let file = dir.join("forebay.yaml");
    swap(&dir, 0, "0");
    symlink("..data/forebay.yaml", &file).unwrap();
    let (watcher, mut changes) = start(&[&file], events_only()).await;
    let writer = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || (1..=1000).for_each(|n| swap(&dir, n, &n.to_string())))
    };
    until(&mut changes, || {
        fs::read_to_string(&file).is_ok_and(|text| text == "1000")
    })
    .await;
    writer.await.unwrap();
    // It is still armed.
    swap(&dir, 1001, "end");
    until(&mut changes, || {
        fs::read_to_string(&file).is_ok_and(|text| text == "end")
    })
    .await;
    assert_eq!(watcher.fallback(), None);
}

#[tokio::test]
async fn reading_and_touching_are_no_change() {
    let (_keep, dir) = dir();
    let file = dir.join("a.yaml");
    fs::write(&file, "a").unwrap();
    let options = WatchOptions {
        poll: Duration::from_millis(20),
        ..WatchOptions::default()
    };
    let (_watcher, mut changes) = start(&[&dir], options).await;
    for _ in 0..50 {
        assert_eq!(fs::read_to_string(&file).unwrap(), "a");
        fs::File::open(&file)
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await; // spreads the touches over several looks
    }
    fs::write(&file, "a").unwrap();
    only(&mut changes, &dir.join("marker.yaml")).await;
}

#[tokio::test]
async fn every_hop_of_a_symlink_chain_counts() {
    let (_keep, dir) = dir();
    for name in ["a", "b", "c", "d"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("d/one"), "1").unwrap();
    fs::write(dir.join("d/two"), "2").unwrap();
    symlink(dir.join("d/one"), dir.join("c/link")).unwrap();
    symlink("../c/link", dir.join("b/link")).unwrap();
    symlink("../b/link", dir.join("a/forebay.yaml")).unwrap();
    let file = dir.join("a/forebay.yaml");
    let (_watcher, mut changes) = start(&[&file], events_only()).await;

    fs::write(dir.join("d/one"), "1, edited").unwrap();
    assert_eq!(next(&mut changes).await.paths, [file.as_path()]);

    fs::remove_file(dir.join("c/link")).unwrap();
    symlink("../d/two", dir.join("c/link")).unwrap();
    assert_eq!(next(&mut changes).await.paths, [file.as_path()]);

    fs::write(dir.join("d/two"), "2, edited").unwrap();
    assert_eq!(next(&mut changes).await.paths, [file.as_path()]);

    symlink("../d/one", dir.join("b/new")).unwrap();
    fs::rename(dir.join("b/new"), dir.join("b/link")).unwrap();
    assert_eq!(next(&mut changes).await.paths, [file.as_path()]);

    // A directory on the way is replaced by a symlink to another one.
    fs::create_dir(dir.join("e")).unwrap();
    fs::write(dir.join("e/link"), "e").unwrap();
    fs::rename(dir.join("b"), dir.join("old")).unwrap();
    symlink("e", dir.join("b")).unwrap();
    until(&mut changes, || {
        fs::read_to_string(&file).is_ok_and(|text| text == "e")
    })
    .await;
}

#[tokio::test]
async fn a_directory_gains_and_loses_files() {
    let (_keep, dir) = dir();
    fs::write(dir.join("a.yaml"), "a").unwrap();
    let (_watcher, mut changes) = start(&[&dir], events_only()).await;
    for name in ["notes.txt", ".hidden.yaml", "a.yaml~"] {
        fs::write(dir.join(name), "not ours").unwrap();
    }
    fs::write(dir.join("b.json"), "{}").unwrap();
    assert_eq!(next(&mut changes).await.paths, [dir.join("b.json")]);
    fs::remove_file(dir.join("a.yaml")).unwrap();
    assert_eq!(next(&mut changes).await.paths, [dir.join("a.yaml")]);
    fs::rename(dir.join("b.json"), dir.join("c.yml")).unwrap();
    assert_eq!(
        next(&mut changes).await.paths,
        [dir.join("b.json"), dir.join("c.yml")]
    );
}

#[tokio::test]
async fn what_is_missing_is_watched_until_it_appears_and_again_when_it_goes() {
    let (_keep, dir) = dir();
    let file = dir.join("x/y/forebay.yaml");
    let (_watcher, mut changes) = start(&[&file], events_only()).await;
    for round in 0..3 {
        fs::create_dir_all(dir.join("x/y")).unwrap();
        fs::write(&file, round.to_string()).unwrap();
        until(&mut changes, || file.exists()).await;
        fs::remove_dir_all(dir.join("x")).unwrap();
        until(&mut changes, || !file.exists()).await;
    }
}

#[tokio::test]
async fn a_directory_removed_and_made_again_at_once_is_still_watched() {
    let (_keep, dir) = dir();
    let conf = dir.join("conf");
    let file = conf.join("a.yaml");
    fs::create_dir(&conf).unwrap();
    fs::write(&file, "0").unwrap();
    let (_watcher, mut changes) = start(&[&conf], events_only()).await;
    for round in 1..=5 {
        fs::remove_dir_all(&conf).unwrap();
        fs::create_dir(&conf).unwrap(); // often under the same inode number
        fs::write(&file, format!("made {round}")).unwrap();
        until(&mut changes, || file.exists()).await;
        fs::write(&file, format!("edited {round}")).unwrap();
        assert_eq!(next(&mut changes).await.paths, [file.as_path()]);
    }
}

#[tokio::test]
async fn constant_writes_do_not_hold_a_change_back() {
    let (_keep, dir) = dir();
    let file = dir.join("forebay.yaml");
    fs::write(&file, "0").unwrap();
    let (_watcher, mut changes) = start(&[&file], events_only()).await;
    let begun = Instant::now();
    let mut writes = 0;
    let change = loop {
        writes += 1;
        rename_over(&file, &writes.to_string());
        if let Ok(change) = timeout(Duration::from_millis(10), changes.recv()).await {
            break change;
        }
        assert!(begun.elapsed() < PATIENCE, "no change while writes go on");
    };
    assert!(change.is_some());
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn without_inotify_the_poll_finds_it() {
    let (_keep, dir) = dir();
    let file = dir.join("forebay.yaml");
    swap(&dir, 0, "a");
    symlink("..data/forebay.yaml", &file).unwrap();
    let options = WatchOptions {
        inotify: false,
        ..WatchOptions::default()
    };
    let (watcher, mut changes) = start(&[&file], options).await;
    assert!(watcher.fallback().is_some());
    for version in 1..3 {
        swap(&dir, version, &version.to_string());
        let written = Instant::now();
        assert_eq!(next(&mut changes).await.paths, [file.as_path()]);
        assert!(
            written.elapsed() < Duration::from_secs(2),
            "{:?}",
            written.elapsed()
        );
    }
}

#[tokio::test]
async fn other_paths_can_be_set_while_a_change_waits_to_be_taken() {
    let (_keep, dir) = dir();
    let (a, b) = (dir.join("a.pem"), dir.join("b.pem"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let (watcher, mut changes) = start(&[&a], events_only()).await;
    fs::write(&a, "a2").unwrap();
    // Nobody takes the changes meanwhile.
    for round in 0..3 {
        fs::write(&a, format!("a{round}")).unwrap();
        timeout(PATIENCE, watcher.set_paths(vec![a.clone(), b.clone()]))
            .await
            .unwrap()
            .unwrap();
    }
    fs::write(&b, "b2").unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&b) {
        seen.extend(next(&mut changes).await.paths);
    }
    assert!(seen.contains(&a));
    watcher.set_paths(vec![b.clone()]).await.unwrap();
    fs::write(&a, "no longer watched").unwrap();
    rename_over(&b, "b3");
    assert_eq!(next(&mut changes).await.paths, [b]);
}

#[tokio::test]
async fn the_thread_ends_with_its_watcher() {
    let (_keep, dir) = dir();
    let (watcher, mut changes) = start(&[&dir], events_only()).await;
    drop(watcher);
    assert_eq!(timeout(PATIENCE, changes.recv()).await.unwrap(), None);
}

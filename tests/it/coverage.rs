//! `docs/coverage.tsv` has a row for every family of ours, with its sources as `nodegauge check
//! --families` tells them, and for those of cAdvisor's that are refused.

#[test]
fn every_family_was_seen_or_there_is_a_reason() {
    let mut sources = Vec::new();
    nodegauge::check::families(&mut sources).unwrap();
    let sources = String::from_utf8(sources).unwrap();
    let sources: Vec<Vec<&str>> = sources.lines().skip(1).map(|line| line.split(" | ").collect()).collect();
    let rows = include_str!("../../docs/coverage.tsv").lines().skip(1);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('\t').collect()).collect();
    let (ours, refused) = rows.split_at(sources.len());
    for (row, source) in ours.iter().zip(&sources) {
        let [family, v1, _, v2, _] = row.as_slice() else { panic!("{row:?}") };
        assert_eq!([family, v1, v2], [&source[0], &source[1], &source[2]]);
    }
    for row in &rows {
        for cells in row[1..].chunks(2) {
            let [source, found] = cells else { panic!("{row:?}") };
            let reason = found.strip_prefix("not seen: ").is_some_and(|reason| reason.len() >= 10);
            assert!(found.starts_with("seen") || reason, "{row:?}");
            assert_eq!(source.starts_with("none: "), found.ends_with("there is no source"), "{row:?}");
        }
    }
    let seen = ours.iter().filter(|row| row[2].starts_with("seen") || row[4].starts_with("seen")).count();
    assert!(seen + 6 >= ours.len(), "only {seen} of {} were seen", ours.len());
    assert!(refused.iter().all(|row| row[1].contains("is refused: ")), "{refused:?}");
    let theirs = rows.iter().filter(|row| !row[0].starts_with("nodegauge_")).count();
    assert_eq!(theirs, 125, "cAdvisor's, and those that containers serve");
}

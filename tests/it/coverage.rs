//! `docs/coverage.tsv` has a row for every family, in the order of `nodegauge check --families`.

#[test]
fn every_family_was_seen_or_there_is_a_reason() {
    let mut sources = Vec::new();
    nodegauge::check::families(&mut sources).unwrap();
    let sources = String::from_utf8(sources).unwrap();
    let families: Vec<&str> = sources.lines().skip(1).map(|line| line.split(" | ").next().unwrap()).collect();
    let rows = include_str!("../../docs/coverage.tsv").lines().skip(1);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('\t').collect()).collect();
    let covered: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(covered, families);
    for row in &rows {
        let [family, found @ ..] = row.as_slice() else { panic!("an empty row") };
        assert!(found.len() == 2 && found.iter().all(|cell| !cell.is_empty()), "{family}");
    }
    let seen = rows.iter().filter(|row| row[1..].iter().any(|cell| cell.starts_with("seen"))).count();
    assert!(seen * 10 >= rows.len() * 9, "only {seen} of {} were seen", rows.len());
}

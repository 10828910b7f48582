//! Where cAdvisor's own pages were: `/containers/`, `/docker/` and `/validate/`, as
//! plain as they can be. The page at `/` shows more.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;

use super::{App, line};
use crate::expose::cadvisor::World;
use crate::snapshot::{CgroupSample, Kind, Limit, Reading};

/// Rows of one table.
const MAX_ROWS: usize = 2_000;

pub(super) fn routes() -> Router<Arc<App>> {
    let to = |path: &'static str| get(async move || Redirect::permanent(path));
    Router::new()
        .route("/containers", to("/containers/"))
        .route("/docker", to("/docker/"))
        .route("/validate", to("/validate/"))
        .route("/containers/", get(async |app| containers(app, Path(String::new())).await))
        .route("/containers/{*path}", get(containers))
        .route("/docker/", get(docker))
        .route("/docker/{name}", get(one_of_docker))
        .route("/validate/", get(validate))
}

async fn containers(State(app): State<Arc<App>>, Path(path): Path<String>) -> Response {
    let path = format!("/{}", path.trim_matches('/'));
    answer(&app, |world| {
        let row = world.row(&path)?;
        let is_child = |other: &&CgroupSample| {
            let rest = other.cgroup.path.strip_prefix(path.trim_end_matches('/'));
            rest.and_then(|rest| rest.strip_prefix('/')).is_some_and(|n| !n.is_empty() && !n.contains('/'))
        };
        let children = world.snapshot.cgroups.iter().filter(is_child);
        Some(page(&path, &figures(row), &table(children)))
    })
}

async fn docker(State(app): State<Arc<App>>) -> Response {
    answer(&app, |world| Some(page("Docker", "", &table(world.of_runtime("docker")))))
}

async fn one_of_docker(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    answer(&app, |world| {
        let row = world.by_name("docker", &name).ok()?;
        Some(page(row.cgroup.identity.name.as_deref().unwrap_or(&name), &figures(row), ""))
    })
}

fn answer(app: &App, make: impl FnOnce(&World) -> Option<String>) -> Response {
    let Some(snapshot) = app.snapshots.latest() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
    };
    match make(&app.world_of(snapshot)) {
        Some(html) => ([(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        None => line(StatusCode::NOT_FOUND, "there is no such container; /containers/ has all"),
    }
}

fn page(title: &str, figures: &str, table: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title></head>\n<body><p><a href=\"../../\">nodegauge</a></p>\n<h1>{title}</h1>\n{figures}{table}</body></html>\n"
    )
}

fn bytes(reading: Reading) -> String {
    reading.map_or_else(|| "?".to_owned(), |bytes| format!("{} KiB", bytes.get() / 1024))
}

fn cores(reading: Reading) -> String {
    reading.map_or_else(|| "?".to_owned(), |nano| format!("{} m", nano.get() / 1_000_000))
}

fn figures(row: &CgroupSample) -> String {
    let limit = match row.spec.memory_limit {
        Some(Limit::Value(bytes)) => format!("{} KiB", bytes / 1024),
        Some(Limit::Max) => "none".to_owned(),
        None => "?".to_owned(),
    };
    let processes = row.process.processes.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let image = row.cgroup.identity.image.as_deref().unwrap_or("");
    let mut list = String::new();
    for (name, value) in [
        ("CPU", cores(row.cpu.nanocores)),
        ("Memory in use", bytes(row.memory.usage)),
        ("Working set", bytes(row.memory.working_set)),
        ("Memory limit", limit),
        ("Processes", processes),
        ("Image", escape(image)),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(list, "<dt>{name}</dt><dd>{value}</dd>");
    }
    format!("<dl>\n{list}</dl>\n")
}

fn table<'a>(rows: impl Iterator<Item = &'a CgroupSample>) -> String {
    let mut html = String::from("<table>\n<tr><th>Container<th>Name<th>CPU<th>Working set</tr>\n");
    for row in rows.take(MAX_ROWS) {
        let path = &row.cgroup.path;
        let link: String = path.trim_start_matches('/').split('/').map(encode).collect::<Vec<_>>().join("/");
        let name = row.cgroup.identity.name.as_deref().unwrap_or("");
        let (cpu, memory) = (cores(row.cpu.nanocores), bytes(row.memory.working_set));
        let _ = writeln!(
            html,
            "<tr><td><a href=\"/containers/{link}\">{}</a><td>{}<td>{cpu}<td>{memory}</tr>",
            escape(path),
            escape(name)
        );
    }
    html.push_str("</table>\n");
    html
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A segment of a path.
fn encode(segment: &str) -> String {
    let mut out = String::new();
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What this host offers, as text; `nodegauge check` tells more.
async fn validate(State(app): State<Arc<App>>) -> Response {
    let Some(snapshot) = app.snapshots.latest() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
    };
    let machine = &snapshot.machine;
    let root = snapshot.cgroups.first();
    let pressure = root.is_some_and(|root| root.pressure.cpu.some_usec.is_some());
    let kinds: Vec<_> = snapshot.kinds.iter().map(Kind::name).collect();
    let mut runtimes: Vec<_> = snapshot.cgroups.iter().filter_map(|row| row.cgroup.part.runtime).collect();
    runtimes.sort_unstable();
    runtimes.dedup();
    let told = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let text = [
        ("version", format!("nodegauge {}", env!("CARGO_PKG_VERSION"))),
        ("operating system", told(&machine.os_version)),
        ("kernel", told(&machine.kernel_version)),
        ("cgroup hierarchy", format!("{:?}", snapshot.hierarchy)),
        ("cgroups", snapshot.cgroups.len().to_string()),
        ("pressure information", if pressure { "yes" } else { "no" }.to_owned()),
        ("runtimes with containers", told(&runtimes.join(", "))),
        ("kinds collected", kinds.join(", ")),
        ("last collection", app.sick().unwrap_or_else(|| "on time".to_owned())),
    ];
    let lines: String = text.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_text() {
        assert_eq!(escape("<a href='x\">&"), "&lt;a href=&#39;x&quot;&gt;&amp;");
        assert_eq!(encode("a b/é\"%"), "a%20b%2F%C3%A9%22%25");
    }
}

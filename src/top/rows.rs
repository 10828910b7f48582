//! Rows of an answer as the tree that is shown: pods with their containers, containers, or cgroups;
//! sorted, filtered, and those below what is open.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::answer::{Columns, Figures, Row};
use super::text::clean;
pub use crate::cli::View;

impl View {
    /// All, in the order in which they follow each other.
    pub const ALL: [View; 3] = [View::Pods, View::Containers, View::Tree];

    /// What is listed first: pods, where there are some.
    pub fn best(rows: &[Row]) -> View {
        let any = |kind| rows.iter().any(|row| row.kind == kind);
        match (any('p'), any('c')) {
            (true, _) => View::Pods,
            (false, true) => View::Containers,
            (false, false) => View::Tree,
        }
    }

    /// Of what it is a list.
    pub fn title(self) -> &'static str {
        match self {
            View::Pods => "pods",
            View::Containers => "containers",
            View::Tree => "cgroups",
        }
    }
}

/// A line of the table, and what is below it.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// The same from answer to answer.
    pub key: String,
    /// Safe to show.
    pub name: String,
    /// Said beside it.
    pub note: String,
    /// What a filter is compared with, lower case.
    words: String,
    namespace: String,
    /// A namespace rather than something that runs.
    pub group: bool,
    /// Whether what is below shows unless somebody says otherwise.
    open: bool,
    /// Path of the cgroup that it is.
    pub target: Option<String>,
    /// Paths whose lines make its own.
    pub lines: Vec<String>,
    /// What it uses.
    pub figures: Figures,
    /// Seconds since the epoch.
    pub created: Option<u64>,
    /// What is below it.
    pub children: Vec<Node>,
}

impl Node {
    fn of(row: &Row, figures: Figures) -> Node {
        let image = row.image.as_deref().unwrap_or_default();
        Node {
            key: row.id.clone(),
            words: format!("{} {image}", clean(&row.id)),
            target: Some(row.id.clone()),
            lines: vec![row.id.clone()],
            figures,
            created: row.created,
            ..Node::default()
        }
    }

    fn container(row: &Row, figures: Figures) -> Node {
        let mut node = Node::of(row, figures);
        let name = row.container.as_deref().or(row.name.as_deref());
        node.name = name.map_or_else(|| plain(&row.id), str::to_owned);
        let image = row.image.as_deref().unwrap_or_default();
        let image = image.rsplit('/').next().unwrap_or_default();
        image.split("@sha256:").next().unwrap_or_default().clone_into(&mut node.note);
        node.namespace = row.namespace.as_deref().unwrap_or_default().to_owned();
        node
    }

    /// What those below use together; what has no sum is absent.
    fn sum(&mut self) {
        let sum = self.children.iter().fold(Figures::default(), |sum, child| sum.plus(&child.figures));
        self.figures = Figures {
            throttled: None,
            cpu_limit: None,
            memory_limit: None,
            cpu_pressure: None,
            memory_pressure: None,
            io_pressure: None,
            ..sum
        };
        self.lines = self.children.iter().flat_map(|child| child.lines.iter().cloned()).collect();
    }

    fn describe(&mut self) {
        let below: String =
            self.children.iter().map(|child| format!(" {} {}", child.name, child.words)).collect();
        let Node { name, note, namespace, words, .. } = self;
        self.words = format!("{name} {note} {namespace} {words}{below}").to_lowercase();
    }

    fn matches(&self, words: &[String]) -> bool {
        words.iter().all(|word| self.words.contains(word.as_str()))
    }
}

/// The last part of a path, shortened to what people tell it by.
pub fn plain(id: &str) -> String {
    let leaf = id.rsplit('/').next().filter(|leaf| !leaf.is_empty()).unwrap_or("/");
    let prefixes = ["cri-containerd-", "crio-", "docker-", "libpod-"];
    let leaf = prefixes.iter().find_map(|prefix| leaf.strip_prefix(prefix)).unwrap_or(leaf);
    let leaf = leaf.strip_suffix(".scope").unwrap_or(leaf);
    let hexadecimal = leaf.len() >= 20 && leaf.bytes().all(|b| b.is_ascii_hexdigit());
    clean(if hexadecimal { leaf.get(..12).unwrap_or(leaf) } else { leaf })
}

/// The nodes of a view.
pub fn nodes(rows: &[Row], columns: &Columns, view: View, grouped: bool) -> Vec<Node> {
    let all = rows.iter().enumerate().map(|(number, row)| (row, columns.row(number)));
    let mut nodes = match view {
        View::Pods => pods(all),
        View::Tree => return tree(all),
        View::Containers => all
            .filter(|(row, _)| row.kind == 'c')
            .map(|(row, figures)| {
                let mut node = Node::container(row, figures);
                if let Some(pod) = &row.pod {
                    node.note = pod.to_string();
                }
                node
            })
            .collect(),
    };
    nodes.iter_mut().for_each(Node::describe);
    if grouped { by_namespace(nodes) } else { nodes }
}

fn pods<'a>(all: impl Iterator<Item = (&'a Row, Figures)>) -> Vec<Node> {
    let (mut pods, mut others) = (BTreeMap::<String, Node>::new(), Vec::new());
    for (row, figures) in all.filter(|(row, _)| matches!(row.kind, 'p' | 's' | 'c')) {
        let named = row
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", row.namespace.as_deref().unwrap_or_default(), &**pod));
        let Some(key) = row.uid.as_deref().map(str::to_owned).or(named) else {
            if row.kind == 'c' {
                others.push(Node::container(row, figures));
            }
            continue;
        };
        let pod = pods.entry(key).or_insert_with_key(|key| Node {
            key: format!("pod {key}"),
            name: key.clone(),
            ..Node::default()
        });
        if let Some(name) = &row.pod {
            pod.name = name.to_string();
            pod.namespace = row.namespace.as_deref().unwrap_or_default().to_owned();
        }
        // A pod's network is counted on one row, often its sandbox's.
        let network =
            Figures { received: pod.figures.received, sent: pod.figures.sent, ..Figures::default() }
                .plus(&Figures { received: figures.received, sent: figures.sent, ..Figures::default() });
        if row.kind == 'p' {
            let own = Node::of(row, figures);
            let (key, name, namespace) =
                (pod.key.clone(), std::mem::take(&mut pod.name), std::mem::take(&mut pod.namespace));
            *pod = Node { key, name, namespace, children: std::mem::take(&mut pod.children), ..own };
        } else if row.kind == 'c' {
            pod.children.push(Node::container(row, figures));
        }
        pod.figures = Figures { received: network.received, sent: network.sent, ..pod.figures };
    }
    let finished = pods.into_values().map(|mut pod| {
        if pod.lines.is_empty() {
            let Figures { received, sent, .. } = pod.figures;
            pod.sum();
            pod.figures = Figures { received, sent, ..pod.figures };
        }
        pod.note = match pod.children.as_slice() {
            [] => String::new(),
            [one] => one.name.clone(),
            many => format!("{} containers", many.len()),
        };
        pod
    });
    finished.chain(others).collect()
}

fn by_namespace(nodes: Vec<Node>) -> Vec<Node> {
    if nodes.iter().all(|node| node.namespace.is_empty()) {
        return nodes;
    }
    let mut groups = BTreeMap::<String, Node>::new();
    for node in nodes {
        let group = groups.entry(node.namespace.clone()).or_insert_with_key(|name| Node {
            key: format!("namespace {name}"),
            name: if name.is_empty() { "outside pods".to_owned() } else { name.clone() },
            group: true,
            open: true,
            ..Node::default()
        });
        group.children.push(node);
    }
    let finished = groups.into_values().map(|mut group| {
        group.sum();
        group.note = group.children.len().to_string();
        group.words = group.name.to_lowercase();
        group
    });
    finished.collect()
}

fn tree<'a>(all: impl Iterator<Item = (&'a Row, Figures)>) -> Vec<Node> {
    let mut found = BTreeMap::<String, Node>::new();
    for (row, figures) in all {
        let mut node = Node::of(row, figures);
        node.name = clean(row.id.rsplit('/').next().filter(|leaf| !leaf.is_empty()).unwrap_or("/"));
        let parts = [row.namespace.as_deref(), row.pod.as_deref(), row.container.as_deref()];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        node.note = match (parts.is_empty(), &row.name) {
            (true, Some(name)) => name.to_string(),
            _ => parts.join("/"),
        };
        node.open = row.id.matches('/').count() < 2;
        node.describe();
        found.insert(row.id.clone(), node);
    }
    // Those below come before what is above them, from the end.
    let mut roots = Vec::new();
    while let Some((id, node)) = found.pop_last() {
        let above = |id: &str| match id.rfind('/') {
            _ if id == "/" => None,
            Some(0) => Some("/".to_owned()),
            at => id.get(..at?).map(str::to_owned),
        };
        let mut parent = above(&id);
        while let Some(path) = parent.as_deref().filter(|path| !found.contains_key(*path)) {
            parent = above(path);
        }
        match parent.and_then(|path| found.get_mut(&path)) {
            Some(parent) => parent.children.push(node),
            None => roots.push(node),
        }
    }
    roots
}

/// A line as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Whose.
    pub node: &'a Node,
    /// How deep in the tree.
    pub depth: usize,
    /// Whether what is below it follows.
    pub open: bool,
}

/// How nodes are put in order, and which.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// What to sort by; by name without it.
    pub by: Option<fn(&Node) -> Option<f64>>,
    /// The largest, or the last of the alphabet, first.
    pub down: bool,
    /// Words that all have to be somewhere in a node's.
    pub filter: &'a str,
    /// Keys of what was opened or closed by hand.
    pub toggled: &'a HashMap<String, bool>,
}

/// Lines in the order they are shown, and how many of them match the filter by themselves.
pub fn lines<'a>(nodes: &'a [Node], wanted: &Wanted<'_>) -> (Vec<Line<'a>>, usize) {
    let words: Vec<String> = wanted.filter.split_whitespace().map(str::to_lowercase).collect();
    let mut walk = Walk { wanted, words, lines: Vec::new(), matched: 0 };
    walk.take(nodes, 0, false);
    (walk.lines, walk.matched)
}

struct Walk<'a, 'w> {
    wanted: &'w Wanted<'w>,
    words: Vec<String>,
    lines: Vec<Line<'a>>,
    matched: usize,
}

impl<'a> Walk<'a, '_> {
    fn take(&mut self, nodes: &'a [Node], depth: usize, inside: bool) {
        let mut kept: Vec<(&Node, bool)> = nodes
            .iter()
            .map(|node| (node, inside || node.matches(&self.words)))
            .filter(|(node, own)| *own || self.any(&node.children))
            .collect();
        kept.sort_by(|(a, _), (b, _)| self.wanted.order(a, b));
        for (node, own) in kept {
            self.matched += usize::from(own && !node.group);
            let open = self.wanted.toggled.get(&node.key).copied().unwrap_or(!own || node.open);
            self.lines.push(Line { node, depth, open });
            if open {
                self.take(&node.children, depth + 1, own && !self.words.is_empty());
            }
        }
    }

    fn any(&self, nodes: &[Node]) -> bool {
        nodes.iter().any(|node| node.matches(&self.words) || self.any(&node.children))
    }
}

impl Wanted<'_> {
    fn order(&self, a: &Node, b: &Node) -> Ordering {
        let name = || natural(&a.name, &b.name).then_with(|| a.key.cmp(&b.key));
        let turned = |order: Ordering| if self.down { order.reverse() } else { order };
        let Some(by) = self.by else { return turned(name()) };
        match (by(a), by(b)) {
            (Some(a), Some(b)) => turned(a.total_cmp(&b)).then_with(name),
            // What is not known is neither large nor small.
            (a, b) => b.is_some().cmp(&a.is_some()).then_with(name),
        }
    }
}

/// Alphabetical, but numbers by their size.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let mut parts: Vec<(u64, String)> = Vec::new();
        for c in text.chars().map(|c| c.to_ascii_lowercase()) {
            match (c.to_digit(10), parts.last_mut()) {
                (Some(digit), Some((number, text))) if text.is_empty() => {
                    *number = number.saturating_mul(10).saturating_add(u64::from(digit));
                }
                (Some(digit), _) => parts.push((u64::from(digit), String::new())),
                (None, Some((_, text))) if !text.is_empty() => text.push(c),
                (None, _) => parts.push((u64::MAX, c.to_string())),
            }
        }
        parts
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::overview;

    fn names(view: View, grouped: bool, filter: &str) -> Vec<String> {
        let answer = overview(10_000);
        let nodes = nodes(answer.rows.as_deref().unwrap(), &answer.columns, view, grouped);
        let wanted = Wanted { by: None, down: false, filter, toggled: &HashMap::new() };
        let (lines, _) = lines(&nodes, &wanted);
        lines.iter().map(|line| format!("{}{}", "  ".repeat(line.depth), line.node.name)).collect()
    }

    #[test]
    fn pods_stand_by_namespace() {
        assert_eq!(
            names(View::Pods, true, ""),
            ["kube-system", "  dns", "outside pods", "  redis", "shop", "  web-2", "  web-10"]
        );
        assert_eq!(names(View::Pods, false, ""), ["dns", "redis", "web-2", "web-10"]);
        assert_eq!(names(View::Containers, false, ""), ["app", "app", "coredns", "redis", "sidecar"]);
    }

    #[test]
    fn a_filter_opens_the_way_to_what_it_finds() {
        assert_eq!(names(View::Pods, true, "shop 10"), ["shop", "  web-10"]);
        assert_eq!(names(View::Tree, false, "redis"), ["/", "  docker", "    redis1"]);
        assert_eq!(names(View::Pods, true, "nothing"), [""; 0]);
        // What lies on top is open by itself.
        let tree = ["/", "  docker", "    redis1", "  kubepods", "    coredns", "    pod1", "    pod2"];
        assert_eq!(names(View::Tree, false, ""), tree);
    }

    #[test]
    fn a_pod_without_a_row_is_the_sum_of_its_containers() {
        let answer = overview(10_000);
        let nodes = nodes(answer.rows.as_deref().unwrap(), &answer.columns, View::Pods, false);
        let pod = |name: &str| nodes.iter().find(|node| node.name == name).unwrap();
        assert_eq!(pod("dns").figures.cpu, Some(70.0));
        assert_eq!(pod("dns").target, None);
        assert_eq!(pod("dns").figures.memory_limit, None);
        assert_eq!(pod("web-10").figures.cpu, Some(300.0));
        assert_eq!(pod("web-10").note, "2 containers");
        // The sandbox's network is the pod's.
        assert_eq!(pod("web-10").figures.received, Some(1000.0));
        assert_eq!(pod("web-2").figures.received, None);
    }

    #[test]
    fn what_is_unknown_comes_last_in_either_direction() {
        let answer = overview(10_000);
        let nodes = nodes(answer.rows.as_deref().unwrap(), &answer.columns, View::Pods, false);
        for (down, expected) in
            [(true, ["web-10", "dns", "redis", "web-2"]), (false, ["redis", "dns", "web-10", "web-2"])]
        {
            let by: fn(&Node) -> Option<f64> = |node| node.figures.cpu;
            let wanted = Wanted { by: Some(by), down, filter: "", toggled: &HashMap::new() };
            let shown: Vec<&str> =
                lines(&nodes, &wanted).0.iter().map(|line| line.node.name.as_str()).collect();
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn paths_are_short() {
        let check = |id: &str, expected: &str| assert_eq!(plain(id), expected);
        check("/", "/");
        check("/system.slice/ssh.service", "ssh.service");
        check(&format!("/a/cri-containerd-{}.scope", "0123456789abcdef".repeat(4)), "0123456789ab");
        check("/x/\u{1b}[31m", "?[31m");
    }
}

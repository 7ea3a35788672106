//! The cluster as a file that is the same on every node: read, checked, and looked at again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use postern_steering::{Generation, MEMBERS_MAX, NODE_NUMBER_MAX, NodeId, Weight};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::time::sleep;
use toml::Spanned;

use super::StoreError;
use super::limits::{FILE_BYTES_MAX, FILE_PERIOD};

/// Everybody that the file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    pub generation: Generation,
    /// In the order of their numbers; at least one.
    pub nodes: Vec<Node>,
}

/// A node as the file has it; at least one address is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub address_v4: Option<Ipv4Addr>,
    pub address_v6: Option<Ipv6Addr>,
    /// Its Ethernet address, where it is on the same link as all others.
    pub ethernet: Option<[u8; 6]>,
    pub weight: Weight,
}

/// A file of nodes, and the last sound content of it.
#[derive(Debug)]
pub struct NodesFile {
    path: PathBuf,
    nodes: Nodes,
    /// The last content that was judged, good or bad.
    seen: Seen,
}

/// What a look at the file finds. Told again only when it differs.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Unreadable(String),
}

impl NodesFile {
    /// # Errors
    /// The file can't be read, or is not sound.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let seen = look(path).await;
        let nodes = judge(path, &seen)?;
        Ok(Self {
            path: path.to_owned(),
            nodes,
            seen,
        })
    }

    /// What is in force.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Waits until there is something new: a sound file of a higher generation, which is then in force.
    /// Given up half-way, it loses nothing.
    ///
    /// # Errors
    /// The file has changed to something that is not taken. What was in force stays.
    pub async fn changed(&mut self) -> Result<&Nodes, StoreError> {
        let seen = loop {
            sleep(FILE_PERIOD).await;
            let seen = look(&self.path).await;
            if seen != self.seen {
                break seen;
            }
        };
        let judged = judge(&self.path, &seen);
        self.seen = seen;
        let nodes = judged?;
        // A file that was set back to what is in force is no news, and no mistake either.
        if nodes.generation <= self.nodes.generation && nodes != self.nodes {
            let why = format!(
                "key generation: {} is not above {}, which is in force; raise it with every change",
                nodes.generation.0, self.nodes.generation.0
            );
            return Err(wrong(&self.path, why));
        }
        self.nodes = nodes;
        Ok(&self.nodes)
    }
}

async fn look(path: &Path) -> Seen {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .await?;
        Ok::<_, std::io::Error>(text)
    };
    match read.await {
        Ok(text) if text.len() as u64 > FILE_BYTES_MAX => {
            Seen::Unreadable(format!("it is longer than {FILE_BYTES_MAX} bytes"))
        }
        Ok(text) => Seen::Text(text),
        Err(error) => Seen::Unreadable(error.to_string()),
    }
}

fn judge(path: &Path, seen: &Seen) -> Result<Nodes, StoreError> {
    match seen {
        Seen::Text(text) => parse(text).map_err(|problem| wrong(path, problem.in_words(text))),
        Seen::Unreadable(why) => Err(wrong(path, why.clone())),
    }
}

fn wrong(path: &Path, why: String) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        why,
    }
}

/// What is wrong with the text, and where.
struct Problem {
    what: String,
    at: Option<Range<usize>>,
}

impl Problem {
    fn new(at: Range<usize>, what: impl ToString) -> Self {
        Self {
            what: what.to_string(),
            at: Some(at),
        }
    }

    /// With the line, and the key that stands in it.
    fn in_words(&self, text: &str) -> String {
        let Some(at) = &self.at else {
            return self.what.clone();
        };
        let before = text.get(..at.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        match line.split_once('=') {
            Some((key, _)) => format!("line {number}, key {}: {}", key.trim(), self.what),
            None => format!("line {number}: {}", self.what),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    generation: Spanned<u64>,
    #[serde(default)]
    nodes: Vec<Spanned<Item>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    id: Spanned<u16>,
    address_v4: Option<Spanned<Ipv4Addr>>,
    address_v6: Option<Spanned<Ipv6Addr>>,
    ethernet: Option<Spanned<String>>,
    weight: Spanned<u32>,
}

fn parse(text: &str) -> Result<Nodes, Problem> {
    let document: Document = toml::from_str(text).map_err(|error| Problem {
        what: error.message().replace('\n', ", "),
        at: error.span(),
    })?;
    let generation = Generation(*document.generation.get_ref());
    if generation == Generation(0) {
        let what = "generations begin with 1";
        return Err(Problem::new(document.generation.span(), what));
    }
    if document.nodes.is_empty() || document.nodes.len() > MEMBERS_MAX {
        let what = format!("between 1 and {MEMBERS_MAX} [[nodes]] make a cluster");
        return Err(Problem { what, at: None });
    }
    let mut nodes = Vec::with_capacity(document.nodes.len());
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for item in document.nodes {
        nodes.push(node(item, &mut ids, &mut addresses)?);
    }
    nodes.sort_by_key(|node| node.id);
    Ok(Nodes { generation, nodes })
}

fn node(
    item: Spanned<Item>,
    ids: &mut BTreeSet<NodeId>,
    addresses: &mut BTreeSet<IpAddr>,
) -> Result<Node, Problem> {
    let whole = item.span();
    let item = item.into_inner();
    let number = *item.id.get_ref();
    let id = NodeId::new(number)
        .filter(|_| number <= NODE_NUMBER_MAX)
        .ok_or_else(|| {
            let what = format!("node {number} is nobody; write 1 to {NODE_NUMBER_MAX}");
            Problem::new(item.id.span(), what)
        })?;
    if !ids.insert(id) {
        let what = format!("{id} is there already");
        return Err(Problem::new(item.id.span(), what));
    }
    let v4 = item.address_v4.iter();
    let v4 = v4.map(|address| (IpAddr::from(*address.get_ref()), address.span()));
    let v6 = item.address_v6.iter();
    let v6 = v6.map(|address| (IpAddr::from(*address.get_ref()), address.span()));
    for (address, at) in v4.chain(v6) {
        if address.is_unspecified() || address.is_multicast() {
            return Err(Problem::new(at, format!("{address} is no node's address")));
        }
        if !addresses.insert(address) {
            return Err(Problem::new(
                at,
                format!("{address} is another node's, too"),
            ));
        }
    }
    if item.address_v4.is_none() && item.address_v6.is_none() {
        let what = format!("{id} has neither address_v4 nor address_v6");
        return Err(Problem {
            what,
            at: Some(whole.start..whole.start),
        });
    }
    let weight = Weight::new(*item.weight.get_ref())
        .map_err(|error| Problem::new(item.weight.span(), error))?;
    let ethernet = match &item.ethernet {
        None => None,
        Some(text) => {
            let what = "six bytes like 02:00:5e:00:53:01, of one node, belong here";
            let bytes = ethernet(text.get_ref());
            Some(bytes.ok_or_else(|| Problem::new(text.span(), what))?)
        }
    };
    Ok(Node {
        id,
        address_v4: item.address_v4.map(Spanned::into_inner),
        address_v6: item.address_v6.map(Spanned::into_inner),
        ethernet,
        weight,
    })
}

/// `02:00:5e:00:53:01` as bytes, where it is the address of one station.
fn ethernet(text: &str) -> Option<[u8; 6]> {
    let mut parts = text.split(':');
    let mut bytes = [0; 6];
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let group = bytes[0] & 1 == 1;
    (parts.next().is_none() && !group && bytes != [0; 6]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "generation = 3\n\
        [[nodes]]\nid = 2\naddress_v6 = \"fd00::2\"\nweight = 50\n\
        [[nodes]]\nid = 1\naddress_v4 = \"10.0.0.1\"\nweight = 100\nethernet = \"02:00:5e:00:53:0a\"\n";

    #[test]
    fn a_sound_file_gives_its_nodes_in_order() {
        let nodes = parse(GOOD).unwrap_or_else(|problem| panic!("{}", problem.what));
        assert_eq!(nodes.generation, Generation(3));
        let [one, two] = nodes.nodes.as_slice() else {
            panic!("{nodes:?}");
        };
        assert_eq!((one.id.get(), two.id.get()), (1, 2));
        assert_eq!(one.address_v4, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(one.ethernet, Some([2, 0, 0x5e, 0, 0x53, 10]));
        assert_eq!((two.weight.get(), two.ethernet), (50, None));
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_its_key() {
        let check = |from: &str, to: &str, place: &str, why: &str| {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let problem = parse(&text)
                .err()
                .unwrap_or_else(|| panic!("{to} is taken"));
            let told = problem.in_words(&text);
            assert!(told.contains(place) && told.contains(why), "{to}: {told}");
        };
        check("= 3", "= \"3\"", "line 1, key generation", "u64");
        check("= 3", "= 0", "line 1, key generation", "begin with 1");
        check("= 3", "= -1", "line 1, key generation", "");
        check("= 3", "3", "line 1", "");
        check("generation = 3\n", "", "", "generation");
        check("id = 2", "id = 0", "line 3, key id", "nobody");
        check("id = 2", "id = 4096", "line 3, key id", "1 to 4095");
        check("id = 2", "id = 1", "line 7, key id", "already");
        check("id = 2", "id = 70000", "line 3, key id", "");
        check("id = 2", "name = 2", "line 3, key name", "unknown field");
        check("fd00::2", "fd00::g", "line 4, key address_v6", "");
        check("fd00::2", "::", "line 4, key address_v6", "no node's");
        check("fd00::2", "ff02::1", "line 4, key address_v6", "no node's");
        check("address_v6 = \"fd00::2\"\n", "", "line 2", "neither");
        check(
            "address_v6 = \"fd00::2\"",
            "address_v4 = \"10.0.0.1\"",
            "line 8, key address_v4",
            "another node's",
        );
        check("= 50", "= 0", "line 5, key weight", "between 1");
        check("= 50", "= 1e9", "line 5, key weight", "");
        check("53:0a", "53", "line 10, key ethernet", "six bytes");
        check("53:0a", "53:+a", "line 10, key ethernet", "six bytes");
        check("02:00", "03:00", "line 10, key ethernet", "one node");
        let empty = parse("generation = 1\n").err().unwrap();
        assert!(empty.in_words("").contains("make a cluster"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_sound_file_of_a_higher_generation_replaces_what_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.toml");
        assert!(NodesFile::open(&path).await.is_err(), "there is none");
        std::fs::write(&path, GOOD).unwrap();
        let mut file = NodesFile::open(&path).await.unwrap();
        let old = file.nodes().clone();

        let refused = async |file: &mut NodesFile, text: &str, why: &str| {
            std::fs::write(&path, text).unwrap();
            let error = file.changed().await.expect_err("it is refused").to_string();
            assert!(
                error.contains("nodes.toml") && error.contains(why),
                "{error}"
            );
            assert_eq!(*file.nodes(), old);
        };
        refused(&mut file, &GOOD.replace("= 50", "= 51"), "key generation").await;
        let earlier = GOOD.replace("= 3", "= 2");
        refused(&mut file, &earlier, "key generation").await;
        refused(&mut file, &GOOD.replace("= 50", "= no"), "line 5").await;
        refused(
            &mut file,
            &"#".repeat(FILE_BYTES_MAX as usize + 1),
            "longer",
        )
        .await;
        std::fs::remove_file(&path).unwrap();
        assert!(file.changed().await.is_err());
        assert_eq!(*file.nodes(), old);

        std::fs::write(&path, GOOD.replace("= 3", "= 4").replace("= 50", "= 51")).unwrap();
        let new = file.changed().await.unwrap();
        assert_eq!(new.generation, Generation(4));
        assert_eq!(new.nodes[1].weight.get(), 51);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mistake_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.toml");
        std::fs::write(&path, GOOD).unwrap();
        let mut file = NodesFile::open(&path).await.unwrap();
        std::fs::write(&path, "generation").unwrap();
        assert!(file.changed().await.is_err());
        let again = tokio::time::timeout(FILE_PERIOD * 5, file.changed()).await;
        assert!(again.is_err(), "{again:?}");
    }
}

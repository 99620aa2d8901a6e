//! Commands that concern a connection alone, and the checks that come before every command.
//!
//! Invariant: what is told here is true of this gateway and its cluster; facts it does not know (addresses, ages,
//! memory) are left out rather than made up.

use crate::command::Command;
use crate::number::parse_integer;
use crate::resp::{Reply, Request, Version};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The version whose behaviour is followed, for clients that ask.
const REDIS_VERSION: &str = "7.0.15";
/// How much of the arguments is shown when a command is unknown, as in Redis.
const SHOWN_BYTES: usize = 128;
/// Bytes of a connection's name.
const NAME_BYTES_MAX: usize = 1_024;

/// What a connection knows about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) version: Version,
    name: Vec<u8>,
    value_bytes: usize,
}

impl Session {
    pub(crate) fn new(id: u64, value_bytes: usize) -> Self {
        Self { id, version: Version::Two, name: Vec::new(), value_bytes }
    }

    fn protocol(&self) -> i64 {
        match self.version {
            Version::Two => 2,
            Version::Three => 3,
        }
    }

    /// Its line in CLIENT LIST.
    fn line(&self) -> String {
        let name = String::from_utf8_lossy(&self.name);
        format!("id={} name={name} db=0 user=default resp={}\n", self.id, self.protocol())
    }
}

/// The connections of a gateway.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<u64, Session>>);

impl Registry {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // a map of plain data is whole between two calls
    }

    pub(crate) fn update(&self, session: &Session) {
        self.sessions().insert(session.id, session.clone());
    }

    pub(crate) fn remove(&self, id: u64) {
        self.sessions().remove(&id);
    }
}

/// Subcommands with the arguments they take, counted as in the table of commands.
fn subcommands(command: Command) -> &'static [(&'static str, i32)] {
    match command {
        Command::Client => {
            &[("getname", 2), ("id", 2), ("info", 2), ("list", -2), ("no-evict", 3), ("setinfo", 4), ("setname", 3)]
        }
        Command::Config => &[("get", -3)],
        Command::Command => &[("count", 2), ("docs", -2), ("info", -2), ("list", -2)],
        _ => &[],
    }
}

/// The command that a request names, with a number of arguments that it takes; else the error's text.
pub(crate) fn check(request: &Request) -> Result<Command, Vec<u8>> {
    let name = request.argument(0);
    let Some(command) = Command::named(name) else { return Err(unknown(request)) };
    let wrong_arity = |name: String| Err(format!("ERR wrong number of arguments for '{name}' command").into_bytes());
    let facts = command.facts();
    if !command.takes(request.len()) {
        return wrong_arity(facts.name.to_owned());
    }
    let subcommands = subcommands(command);
    if !subcommands.is_empty() && request.len() > 1 {
        let given = request.argument(1);
        let found = subcommands.iter().find(|(name, _)| given.eq_ignore_ascii_case(name.as_bytes()));
        let Some((name, arity)) = found else {
            let shown = &shown(given)[..given.len().min(SHOWN_BYTES)];
            let help = facts.name.to_uppercase();
            return Err([b"ERR unknown subcommand '", shown, b"'. Try ", help.as_bytes(), b" HELP."].concat());
        };
        let count = request.len() as i32;
        if if *arity >= 0 { count != *arity } else { count < -arity } {
            return wrong_arity(format!("{}|{name}", facts.name));
        }
    }
    Ok(command)
}

/// C strings end at their first zero, and so does what Redis shows of them.
fn shown(argument: &[u8]) -> &[u8] {
    argument.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn unknown(request: &Request) -> Vec<u8> {
    let name = shown(request.argument(0));
    let mut arguments = Vec::new();
    for argument in request.arguments().skip(1) {
        if arguments.len() >= SHOWN_BYTES {
            break;
        }
        let argument = shown(argument);
        let room = SHOWN_BYTES - arguments.len();
        arguments.push(b'\'');
        arguments.extend_from_slice(&argument[..argument.len().min(room)]);
        arguments.extend_from_slice(b"' ");
    }
    let name = &name[..name.len().min(SHOWN_BYTES)];
    [b"ERR unknown command '", name, b"', with args beginning with: ", &arguments].concat()
}

/// Runs a command of the gateway's own that was checked.
pub(crate) fn run(session: &mut Session, registry: &Registry, command: Command, request: &Request) -> Vec<u8> {
    if command == Command::Hello {
        return hello(session, request);
    }
    Reply::of(session.version, |reply| match command {
        Command::Ping => ping(request, reply),
        Command::Echo => reply.bulk(request.argument(1)),
        Command::Select => select(request, reply),
        Command::Client => client(session, registry, request, reply),
        Command::Config => config(session, request, reply),
        Command::Command => describe(request, reply),
        _ => reply.ok(), // QUIT, UNWATCH in a transaction
    })
}

fn ping(request: &Request, reply: &mut Reply) {
    match request.len() {
        1 => reply.simple("PONG"),
        2 => reply.bulk(request.argument(1)),
        _ => reply.error("ERR wrong number of arguments for 'ping' command"),
    }
}

fn select(request: &Request, reply: &mut Reply) {
    match parse_integer(request.argument(1)) {
        Some(0) => reply.ok(),
        Some(_) => reply.error("ERR DB index is out of range"),
        None => reply.error("ERR value is not an integer or out of range"),
    }
}

fn valid_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && name.iter().all(u8::is_ascii_graphic)
}

const INVALID_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn hello(session: &mut Session, request: &Request) -> Vec<u8> {
    match greet(session, request) {
        Err(refusal) => Reply::of(session.version, |reply| reply.error(refusal)),
        Ok(greeted) => {
            *session = greeted;
            Reply::of(session.version, |reply| {
                reply.map(7);
                let mut pair = |name: &str, write: &mut dyn FnMut(&mut Reply)| {
                    reply.bulk(name.as_bytes());
                    write(reply);
                };
                pair("server", &mut |reply| reply.bulk(b"redis"));
                pair("version", &mut |reply| reply.bulk(REDIS_VERSION.as_bytes()));
                pair("proto", &mut |reply| reply.integer(session.protocol()));
                pair("id", &mut |reply| reply.integer(session.id as i64));
                pair("mode", &mut |reply| reply.bulk(b"standalone"));
                pair("role", &mut |reply| reply.bulk(b"master"));
                pair("modules", &mut |reply| reply.array(0));
            })
        }
    }
}

/// The session as HELLO wants it, or the refusal.
fn greet(session: &Session, request: &Request) -> Result<Session, Vec<u8>> {
    let mut greeted = session.clone();
    if request.len() > 1 {
        greeted.version = match parse_integer(request.argument(1)) {
            Some(2) => Version::Two,
            Some(3) => Version::Three,
            Some(_) => return Err(b"NOPROTO unsupported protocol version".to_vec()),
            None => return Err(b"ERR Protocol version is not an integer or out of range".to_vec()),
        };
    }
    let mut index = 2;
    while index < request.len() {
        let (option, behind) = (request.argument(index), request.len() - index - 1);
        if option.eq_ignore_ascii_case(b"AUTH") && behind >= 2 {
            // there is one user, and it needs no password
            if request.argument(index + 1) != b"default" {
                return Err(b"WRONGPASS invalid username-password pair or user is disabled.".to_vec());
            }
            index += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && behind >= 1 {
            let name = request.argument(index + 1);
            if !valid_name(name) {
                return Err(INVALID_NAME.into());
            }
            greeted.name = name.to_vec();
            index += 2;
        } else {
            return Err([b"ERR Syntax error in HELLO option '", shown(option), b"'"].concat());
        }
    }
    Ok(greeted)
}

fn client(session: &mut Session, registry: &Registry, request: &Request, reply: &mut Reply) {
    let option = request.argument(2);
    match request.argument(1).to_ascii_lowercase().as_slice() {
        b"id" => reply.integer(session.id as i64),
        b"getname" if session.name.is_empty() => reply.null(),
        b"getname" => reply.bulk(&session.name),
        b"setname" if !valid_name(option) => reply.error(INVALID_NAME),
        b"setname" => {
            session.name = option.to_vec();
            reply.ok();
        }
        b"setinfo" if option.eq_ignore_ascii_case(b"lib-name") || option.eq_ignore_ascii_case(b"lib-ver") => reply.ok(),
        b"setinfo" => reply.error([b"ERR Unrecognized option '", shown(option), b"'"].concat()),
        b"no-evict" if option.eq_ignore_ascii_case(b"on") || option.eq_ignore_ascii_case(b"off") => reply.ok(),
        b"no-evict" => reply.error("ERR syntax error"),
        b"info" => reply.verbatim(&session.line()),
        _ => client_list(registry, request, reply),
    }
}

fn client_list(registry: &Registry, request: &Request, reply: &mut Reply) {
    let sessions = registry.sessions();
    let all = || sessions.values().map(Session::line).collect::<String>();
    match request.argument(2).to_ascii_lowercase().as_slice() {
        _ if request.len() == 2 => reply.verbatim(&all()),
        b"type" if request.len() == 4 => match request.argument(3).to_ascii_lowercase().as_slice() {
            b"normal" => reply.verbatim(&all()),
            b"master" | b"replica" | b"slave" | b"pubsub" => reply.verbatim(""),
            _ => reply.error([b"ERR Unknown client type '", shown(request.argument(3)), b"'"].concat()),
        },
        b"id" if request.len() > 3 => {
            let mut text = String::new();
            for id in request.arguments().skip(3) {
                match parse_integer(id) {
                    Some(id) => text.push_str(&sessions.get(&(id as u64)).map(Session::line).unwrap_or_default()),
                    None => return reply.error("ERR Invalid client ID"),
                }
            }
            reply.verbatim(&text);
        }
        _ => reply.error("ERR syntax error"),
    }
}

fn config(session: &Session, request: &Request, reply: &mut Reply) {
    let value_bytes = session.value_bytes.to_string();
    let parameters = [
        ("appendfsync", "always"), // an answer is durable on a quorum before it leaves
        ("appendonly", "yes"),
        ("databases", "1"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("proto-max-bulk-len", &value_bytes),
        ("save", ""),
        ("timeout", "0"),
    ];
    let patterns: Vec<_> = request.arguments().skip(2).map(<[u8]>::to_ascii_lowercase).collect();
    let asked = |name: &str| patterns.iter().any(|pattern| matches_glob(pattern, name.as_bytes()));
    let matching: Vec<_> = parameters.into_iter().filter(|(name, _)| asked(name)).collect();
    reply.map(matching.len());
    for (name, value) in matching {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

/// Does `text` match a pattern of `*`, `?`, `[...]` and `\`-escaped bytes? Takes time linear in their product.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match rest {
            [b'*', tail @ ..] => {
                star = Some((tail, left));
                rest = tail;
                continue;
            }
            [] if left.is_empty() => return true,
            [] => None,
            _ => match_one(rest, left),
        };
        match (step, star) {
            (Some(tail), _) => (rest, left) = (tail, &left[1..]),
            (None, Some((tail, [_, from @ ..]))) => {
                star = Some((tail, from));
                (rest, left) = (tail, from);
            }
            (None, _) => return false,
        }
    }
}

/// What is left of a pattern (not of `*`) once its first element has matched the first byte of `text`.
fn match_one<'a>(pattern: &'a [u8], text: &[u8]) -> Option<&'a [u8]> {
    let byte = text.first()?;
    match pattern {
        [b'?', tail @ ..] => Some(tail),
        [b'[', class @ ..] if class.contains(&b']') => {
            let end = class.iter().position(|byte| *byte == b']')?;
            let (class, tail) = (&class[..end], &class[end + 1..]);
            let (negated, class) = class.strip_prefix(b"^").map_or((false, class), |class| (true, class));
            let mut found = false;
            let mut rest = class;
            while let [first, behind @ ..] = rest {
                rest = behind;
                if let [b'-', last, behind @ ..] = rest {
                    found |= (first.min(last)..=first.max(last)).contains(&byte);
                    rest = behind;
                } else {
                    found |= first == byte;
                }
            }
            (found != negated).then_some(tail)
        }
        [b'\\', escaped, tail @ ..] => (escaped == byte).then_some(tail),
        [plain, tail @ ..] => (plain == byte).then_some(tail),
        [] => None,
    }
}

fn describe(request: &Request, reply: &mut Reply) {
    let named = || request.arguments().skip(2);
    match request.argument(1).to_ascii_lowercase().as_slice() {
        b"count" => reply.count(Command::ALL.len()),
        b"list" => list_commands(request, reply),
        b"docs" => {
            let commands: Vec<_> =
                if request.len() == 2 { Command::ALL.to_vec() } else { named().filter_map(Command::named).collect() };
            reply.map(commands.len());
            commands.into_iter().for_each(|command| document(command, reply));
        }
        b"info" if request.len() > 2 => {
            reply.array(request.len() - 2);
            for name in named() {
                match Command::named(name) {
                    Some(command) => inform(command, reply),
                    None => reply.null(),
                }
            }
        }
        _ => {
            reply.array(Command::ALL.len());
            Command::ALL.iter().for_each(|command| inform(*command, reply));
        }
    }
}

fn list_commands(request: &Request, reply: &mut Reply) {
    let pattern = request.argument(4).to_ascii_lowercase();
    let by = request.argument(3).to_ascii_lowercase();
    let category = [b"@", pattern.as_slice()].concat();
    let filter = |command: &&Command| match by.as_slice() {
        b"pattern" => matches_glob(&pattern, command.facts().name.as_bytes()),
        b"aclcat" => command.facts().categories.split(' ').any(|it| it.as_bytes() == category),
        b"module" => false,
        _ => true,
    };
    let filtered = request.len() == 5 && request.argument(2).eq_ignore_ascii_case(b"filterby");
    if !(request.len() == 2 || filtered && matches!(by.as_slice(), b"pattern" | b"aclcat" | b"module")) {
        return reply.error("ERR syntax error");
    }
    let names: Vec<_> = Command::ALL.iter().filter(filter).map(|command| command.facts().name).collect();
    reply.array(names.len());
    names.into_iter().for_each(|name| reply.bulk(name.as_bytes()));
}

fn inform(command: Command, reply: &mut Reply) {
    let facts = command.facts();
    let words = |reply: &mut Reply, words: &str| {
        reply.set(words.split_whitespace().count());
        words.split_whitespace().for_each(|word| reply.simple(word));
    };
    reply.array(10);
    reply.bulk(facts.name.as_bytes());
    reply.integer(i64::from(facts.arity));
    words(reply, facts.flags);
    let (first, last, step) = facts.keys;
    [first, last, step].into_iter().for_each(|number| reply.integer(i64::from(number)));
    words(reply, facts.categories);
    (0..3).for_each(|_| reply.array(0)); // tips, key specifications, subcommands
}

fn document(command: Command, reply: &mut Reply) {
    let facts = command.facts();
    reply.bulk(facts.name.as_bytes());
    let pairs = [("summary", facts.summary), ("since", facts.since), ("group", facts.group)];
    reply.map(pairs.len());
    for (name, text) in pairs {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
}

/// INFO as far as the gateway knows it.
pub(crate) struct Info {
    pub(crate) text: String,
    /// Are the counts of keys, which the cluster knows, asked for?
    pub(crate) keyspace: bool,
}

pub(crate) fn info(registry: &Registry, request: &Request) -> Info {
    let asked: Vec<_> = request.arguments().skip(1).map(<[u8]>::to_ascii_lowercase).collect();
    let wanted = |section: &str| {
        let names = [section, "all", "default", "everything"];
        asked.is_empty() || asked.iter().any(|asked| names.iter().any(|name| asked == name.as_bytes()))
    };
    let connected = registry.sessions().len();
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nunisono_version:{}\r\narch_bits:64\r\n",
                env!("CARGO_PKG_VERSION")
            ),
        ),
        ("Clients", format!("connected_clients:{connected}\r\n")),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".to_owned()),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
    ];
    let keyspace = wanted("keyspace");
    let mut texts: Vec<String> = Vec::new();
    for (name, lines) in sections {
        if wanted(&name.to_lowercase()) {
            texts.push(format!("# {name}\r\n{lines}"));
        }
    }
    if keyspace {
        texts.push(String::new()); // the cluster writes it behind the others
    }
    Info { text: texts.join("\r\n"), keyspace }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &[&str]) -> String {
        String::from_utf8(check(&Request::from_arguments(words)).unwrap_err()).unwrap()
    }

    #[test]
    fn what_cannot_be_done_is_said_in_the_words_of_redis() {
        assert_eq!(refusal(&["foo", "a", "b"]), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        assert_eq!(refusal(&[""]), "ERR unknown command '', with args beginning with: ");
        assert_eq!(refusal(&["GET"]), "ERR wrong number of arguments for 'get' command");
        assert_eq!(refusal(&["CLIENT", "FOO"]), "ERR unknown subcommand 'FOO'. Try CLIENT HELP.");
        assert_eq!(refusal(&["CLIENT", "SETNAME"]), "ERR wrong number of arguments for 'client|setname' command");
        assert_eq!(refusal(&["CONFIG"]), "ERR wrong number of arguments for 'config' command");
        let long = "x".repeat(300);
        assert!(refusal(&[&long, &long, &long]).len() < 350, "not more than a little of it is shown");
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("maxmemory*", "maxmemory-policy", true),
            ("*mem*", "maxmemory", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("s?ve", "save", true),
            ("s[a-c]ve", "save", true),
            ("s[^a]ve", "save", false),
            ("s[", "s[", true),
            (r"s\*", "s*", true),
            (r"s\*", "sa", false),
            ("save", "saved", false),
        ] {
            assert_eq!(matches_glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let stars = "*a".repeat(1_000);
        assert!(!matches_glob(stars.as_bytes(), &vec![b'b'; 10_000]), "in no time");
    }

    #[test]
    fn info_tells_what_was_asked() {
        let registry = Registry::default();
        let of = |words: &[&str]| info(&registry, &Request::from_arguments(words));
        assert!(of(&["INFO"]).keyspace && of(&["INFO"]).text.starts_with("# Server\r\n"));
        let clients = of(&["INFO", "CLIENTS"]);
        assert_eq!((clients.keyspace, clients.text.as_str()), (false, "# Clients\r\nconnected_clients:0\r\n"));
        assert_eq!(of(&["INFO", "keyspace"]).text, "");
        let nothing = of(&["INFO", "nosuch"]);
        assert_eq!((nothing.keyspace, nothing.text.as_str()), (false, ""));
    }
}

//! Rows and records: what a change writes, and what a start reads back.

use super::{Change, Identity, ModuleRow, Removal};
use crate::model::event::{Event, EventKind, EventView};
use crate::model::instance::{Ended, ExitStatus, InstanceId, Launch, Record, State, Stopped, Timestamp};
use crate::model::reply::RunView;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;
use std::sync::Arc;

/// What an environment is written down as: pairs of names and values.
type Environment = Vec<(String, String)>;

/// Nobody counts that far. A file that claims it is damaged, and so what comes next is always a number too.
const NUMBER_MAX: u64 = 1 << 62;
/// Nor runs anything that often.
const RUN_MAX: u32 = 1 << 31;

/// Makes one change; the caller's transaction is open.
pub(super) fn write(connection: &Connection, change: &Change, runs_max: usize) -> rusqlite::Result<()> {
    match change {
        Change::Event { event, view, ended_order, env } => {
            write_event(connection, event, *ended_order, env, runs_max)?;
            let detail = json(view)?;
            run(
                connection,
                "INSERT INTO event (seq, at, detail) VALUES (?1, ?2, ?3)",
                params![integer(view.seq)?, integer(event.at.0)?, detail],
            )
        }
        Change::PutModule(row) => run(
            connection,
            "INSERT OR REPLACE INTO module (name, sha256, bytes, text) VALUES (?1, ?2, ?3, ?4)",
            params![row.name, row.sha256, integer(row.bytes)?, row.text],
        ),
        Change::ForgetModule(name) => any(connection, "DELETE FROM module WHERE name = ?1", params![name]),
        // SQLite's integers are signed; the bits of these go through unchanged.
        Change::PutWorkspace(path, identity) => run(
            connection,
            "INSERT OR REPLACE INTO workspace (path, device, inode, born) VALUES (?1, ?2, ?3, ?4)",
            params![path, identity.device.cast_signed(), identity.inode.cast_signed(), identity.born.cast_signed()],
        ),
        Change::ForgetWorkspaces(paths) => {
            paths.iter().try_for_each(|p| any(connection, "DELETE FROM workspace WHERE path = ?1", params![p]))
        }
        Change::PutRemoval(removal) => run(
            connection,
            "INSERT OR REPLACE INTO removal (grave, path, device, inode) VALUES (?1, ?2, ?3, ?4)",
            params![removal.grave, removal.path, removal.device.cast_signed(), removal.inode.cast_signed()],
        ),
        Change::ForgetRemoval(grave) => any(connection, "DELETE FROM removal WHERE grave = ?1", params![grave]),
    }
}

fn write_event(
    connection: &Connection,
    event: &Event,
    ended_order: Option<u64>,
    env: &Environment,
    runs_max: usize,
) -> rusqlite::Result<()> {
    let (id, number, at) = (integer(event.id.0)?, event.run, integer(event.at.0)?);
    let order = ended_order.map(integer).transpose()?;
    match &event.kind {
        EventKind::Created(launch) => {
            // The policy's count goes on from a run to the one that follows it, and begins anew with an operator's.
            run(
                connection,
                "INSERT INTO instance (id, name, run, restarts, stop_requested, restarting, ended_order, env)
                 VALUES (?1, ?2, ?3, 0, 0, 0, NULL, ?4)
                 ON CONFLICT (id) DO UPDATE SET run = excluded.run, stop_requested = 0,
                 restarts = CASE restarting WHEN 1 THEN restarts ELSE 0 END, restarting = 0, ended_order = NULL,
                 env = excluded.env",
                params![id, event.name.as_str(), number, json(env)?],
            )?;
            run(
                connection,
                "INSERT INTO run (instance, run, state, created_at, launch) VALUES (?1, ?2, 'created', ?3, ?4)",
                params![id, number, at, json(&**launch)?],
            )?;
            let kept = i64::from(number) - i64::try_from(runs_max).unwrap_or(i64::MAX);
            if kept > 0 {
                any(connection, "DELETE FROM run WHERE instance = ?1 AND run <= ?2", params![id, kept])?;
            }
            Ok(())
        }
        EventKind::Started => run(
            connection,
            "UPDATE run SET state = 'running', started_at = ?3 WHERE instance = ?1 AND run = ?2 AND state = 'created'",
            params![id, number, at],
        ),
        EventKind::StopRequested => {
            run(connection, "UPDATE instance SET stop_requested = 1 WHERE id = ?1", params![id])
        }
        EventKind::Restarting { ended, restarts, .. } => {
            write_end(connection, id, number, ended, at)?;
            run(connection, "UPDATE instance SET restarting = 1, restarts = ?2 WHERE id = ?1", params![id, restarts])
        }
        EventKind::Ended(ended) => {
            write_end(connection, id, number, ended, at)?;
            run(connection, "UPDATE instance SET restarting = 0, ended_order = ?2 WHERE id = ?1", params![id, order])
        }
        EventKind::RestartCancelled => {
            run(connection, "UPDATE instance SET restarting = 0, ended_order = ?2 WHERE id = ?1", params![id, order])
        }
        EventKind::Resumed => run(
            connection,
            "UPDATE instance SET restarting = 1, stop_requested = 0, ended_order = NULL WHERE id = ?1",
            params![id],
        ),
        EventKind::Removed => {
            any(connection, "DELETE FROM run WHERE instance = ?1", params![id])?;
            run(connection, "DELETE FROM instance WHERE id = ?1", params![id])
        }
    }
}

fn write_end(connection: &Connection, id: i64, number: u32, ended: &Ended, at: i64) -> rusqlite::Result<()> {
    run(
        connection,
        "UPDATE run SET state = ?3, exit_code = ?4, reason = ?5, message = ?6, ended_at = ?7, cpu_us = ?8, stopped = ?9
         WHERE instance = ?1 AND run = ?2 AND state IN ('created', 'running')",
        params![
            id,
            number,
            ended.status.word(),
            ended.status.exit_code(),
            ended.reason,
            ended.message,
            at,
            ended.cpu_us.map(integer).transpose()?,
            ended.stopped.as_ref().map(json).transpose()?,
        ],
    )
}

/// A change of exactly one row: otherwise what is in memory does not follow from what is on disk.
fn run(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
    match connection.prepare_cached(sql)?.execute(params)? {
        1 => Ok(()),
        n => Err(rusqlite::Error::StatementChangedRows(n)),
    }
}

/// A change of as many rows as there are.
fn any(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(params).map(|_| ())
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn integer(n: u64) -> rusqlite::Result<i64> {
    i64::try_from(n).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// A column that holds something that we never wrote.
fn bad(column: usize, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|e| bad(column, e))
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let at = Timestamp(unsigned(row, column)?);
    if at > Timestamp::MAX {
        return Err(bad(column, "a time beyond the year 9999"));
    }
    Ok(at)
}

fn timestamp_or_null(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => timestamp(row, column).map(Some),
    }
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let n: i64 = row.get(column)?;
    u64::try_from(n).map_err(|e| bad(column, e))
}

/// A number that is followed by others; null where there is none.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let Some(n) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    match u64::try_from(n) {
        Ok(n) if n <= NUMBER_MAX => Ok(Some(n)),
        _ => Err(bad(column, format!("{n} is no number that was ever given"))),
    }
}

/// Every instance with its newest run, in the order of ids; checked, so that the registry can rely on it.
pub(super) fn records(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare(
        "SELECT i.id, i.name, i.run, i.restarts, i.stop_requested, i.restarting, i.ended_order,
                r.state, r.exit_code, r.reason, r.message, r.cpu_us, r.stopped,
                r.created_at, r.started_at, r.ended_at, r.launch
         FROM instance i JOIN run r ON r.instance = i.id AND r.run = i.run ORDER BY i.id",
    )?;
    let records: Vec<Record> = statement.query_map([], record)?.collect::<Result<_, _>>()?;
    let all: i64 = connection.query_row("SELECT count(*) FROM instance", [], |row| row.get(0))?;
    if usize::try_from(all).ok() != Some(records.len()) {
        return Err(bad(2, "an instance without its newest run"));
    }
    let mut orders = HashSet::with_capacity(records.len());
    if records.iter().filter_map(|r| r.ended_order).any(|order| !orders.insert(order)) {
        return Err(bad(6, "two ends in one place"));
    }
    let mut names = HashSet::with_capacity(records.len());
    match records.iter().find(|r| !names.insert(r.name.folded())) {
        Some(twice) => Err(bad(1, format!("two instances named '{}'", twice.name))),
        None => Ok(records),
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let restarting: bool = row.get(5)?;
    let ended_order = number(row, 6)?;
    let state = match (row.get_ref(7)?.as_str()?, restarting) {
        ("created", false) => State::Created,
        ("running", false) => State::Running,
        (_, true) => State::Restarting(ended(row, 7)?),
        (_, false) => State::Ended(ended(row, 7)?),
    };
    if ended_order.is_some() == state.is_live() {
        return Err(bad(6, "an end without its place, or a place without an end"));
    }
    let run: u32 = row.get(2)?;
    if run > RUN_MAX {
        return Err(bad(2, "more runs than there can be"));
    }
    Ok(Record {
        id: InstanceId(number(row, 0)?.ok_or_else(|| bad(0, "an instance without a number"))?),
        name: row.get::<_, String>(1)?.try_into().map_err(|e: crate::Error| bad(1, e))?,
        run,
        launch: Arc::new(from_json::<Launch>(row, 16)?),
        state,
        stop_requested: row.get(4)?,
        restarts: row.get(3)?,
        created_at: timestamp(row, 13)?,
        started_at: timestamp_or_null(row, 14)?,
        ended_at: timestamp_or_null(row, 15)?,
        ended_order,
    })
}

/// The columns state, `exit_code`, reason, message, `cpu_us`, stopped from `first` on.
fn ended(row: &Row<'_>, first: usize) -> rusqlite::Result<Ended> {
    let status = match row.get_ref(first)?.as_str()? {
        "exited" => ExitStatus::Exited(row.get(first + 1)?),
        "trapped" => ExitStatus::Trapped,
        "stopped" => ExitStatus::Stopped,
        "killed" => ExitStatus::Killed,
        "timed-out" => ExitStatus::TimedOut,
        "failed" => ExitStatus::Failed,
        "lost" => ExitStatus::Lost,
        other => return Err(bad(first, format!("no state is called '{other}'"))),
    };
    Ok(Ended {
        status,
        reason: row.get(first + 2)?,
        message: row.get(first + 3)?,
        cpu_us: cpu_us(row, first + 4)?,
        stopped: stopped(row, first + 5)?,
    })
}

fn cpu_us(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column)?.map(|n| u64::try_from(n).map_err(|e| bad(column, e))).transpose()
}

fn stopped(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Stopped>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| serde_json::from_str(text).map_err(|e| bad(column, e))).transpose()
}

/// The smallest numbers that were never used: of an instance, and of an event.
pub(super) fn next_numbers(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let id = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'instance'", [], |row| number(row, 0))
        .optional()?
        .flatten();
    let seq = connection.query_row("SELECT max(seq) FROM event", [], |row| number(row, 0))?;
    let next = |used: Option<u64>| used.map_or(1, |used| used + 1);
    Ok((next(id), next(seq)))
}

/// The values that the newest run of an instance was given.
pub(super) fn environment(connection: &Connection, id: InstanceId) -> rusqlite::Result<Option<Environment>> {
    let mut statement = connection.prepare_cached("SELECT env FROM instance WHERE id = ?1")?;
    statement.query_row([integer(id.0)?], |row| from_json(row, 0)).optional()
}

/// The known runs of an instance, oldest first.
pub(super) fn runs(connection: &Connection, id: InstanceId) -> rusqlite::Result<Vec<RunView>> {
    let mut statement = connection.prepare_cached(
        "SELECT run, state, exit_code, reason, message, created_at, started_at, ended_at, launch, cpu_us, stopped
         FROM run WHERE instance = ?1 ORDER BY run",
    )?;
    let rows = statement.query_map([integer(id.0)?], |row| {
        let launch: Launch = from_json(row, 8)?;
        Ok(RunView {
            run: row.get(0)?,
            module: launch.module,
            digest: launch.digest,
            state: row.get(1)?,
            exit_code: row.get(2)?,
            reason: row.get(3)?,
            message: row.get(4)?,
            created_at: timestamp(row, 5)?.to_string(),
            started_at: timestamp_or_null(row, 6)?.map(|t| t.to_string()),
            ended_at: timestamp_or_null(row, 7)?.map(|t| t.to_string()),
            cpu_us: cpu_us(row, 9)?,
            stopped: stopped(row, 10)?,
        })
    })?;
    rows.collect()
}

/// Events from `seq` on, at most `max`.
pub(super) fn events(
    connection: &Connection,
    seq: u64,
    max: usize,
    bytes_max: usize,
) -> rusqlite::Result<(Vec<EventView>, bool)> {
    let mut statement = connection.prepare_cached("SELECT detail FROM event WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = statement.query([i64::try_from(seq).unwrap_or(i64::MAX)])?;
    let (mut events, mut bytes) = (vec![], 0);
    while let Some(row) = rows.next()? {
        if events.len() >= max || bytes >= bytes_max {
            return Ok((events, true));
        }
        bytes += row.get_ref(0)?.as_bytes()?.len();
        events.push(from_json(row, 0)?);
    }
    Ok((events, false))
}

/// The number behind the last event that is kept of before a time. `None`: no event is kept.
pub(super) fn event_at(connection: &Connection, at: Timestamp) -> rusqlite::Result<Option<u64>> {
    // From the newest back, for mostly it is the last few that are asked for; and times may go backwards with the clock, so it is
    // the first behind the last one that was earlier.
    let mut statement = connection.prepare_cached("SELECT seq FROM event WHERE at < ?1 ORDER BY seq DESC LIMIT 1")?;
    let before = statement.query_row([i64::try_from(at.0).unwrap_or(i64::MAX)], |row| unsigned(row, 0)).optional()?;
    match before {
        Some(seq) => Ok(Some(seq.saturating_add(1))),
        None => oldest_event(connection),
    }
}

/// The number of the oldest event that is kept.
pub(super) fn oldest_event(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let oldest: Option<i64> =
        connection.prepare_cached("SELECT min(seq) FROM event")?.query_row([], |row| row.get(0))?;
    Ok(oldest.and_then(|seq| u64::try_from(seq).ok()))
}

/// Every stored module, by name.
pub(super) fn modules(connection: &Connection) -> rusqlite::Result<Vec<ModuleRow>> {
    let mut statement = connection.prepare_cached("SELECT name, sha256, bytes, text FROM module ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok(ModuleRow { name: row.get(0)?, sha256: row.get(1)?, bytes: unsigned(row, 2)?, text: row.get(3)? })
    })?;
    rows.collect()
}

/// What a signed column holds of an unsigned number.
fn bits(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

/// Which directory a path led to.
pub(super) fn workspace(connection: &Connection, path: &str) -> rusqlite::Result<Option<Identity>> {
    let mut statement = connection.prepare_cached("SELECT device, inode, born FROM workspace WHERE path = ?1")?;
    statement.query_row([path], identity).optional()
}

/// Every path that is written down, and which directory it led to.
pub(super) fn workspaces(connection: &Connection) -> rusqlite::Result<Vec<(String, Identity)>> {
    let mut statement = connection.prepare("SELECT device, inode, born, path FROM workspace")?;
    statement.query_map([], |row| Ok((row.get(3)?, identity(row)?)))?.collect()
}

/// The columns device, inode, born.
fn identity(row: &Row<'_>) -> rusqlite::Result<Identity> {
    Ok(Identity { device: bits(row, 0)?, inode: bits(row, 1)?, born: bits(row, 2)? })
}

/// Every directory that is being removed.
pub(super) fn removals(connection: &Connection) -> rusqlite::Result<Vec<Removal>> {
    let mut statement = connection.prepare("SELECT grave, path, device, inode FROM removal")?;
    let rows = statement.query_map([], |row| {
        Ok(Removal { grave: row.get(0)?, path: row.get(1)?, device: bits(row, 2)?, inode: bits(row, 3)? })
    })?;
    rows.collect()
}

//! Which errors of SQLite mean that bytes are not what was written, and reading past them: every other error is the
//! disk's or ours, and stays one.

use rusqlite::{Connection, ErrorCode, Params, Row};

/// Whether an error says that the file is damaged at this place, rather than that it cannot be read at all.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => true,
        error => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
    }
}

/// Passes over damage, and over nothing else; `None` where there was some.
pub(super) fn tolerate<T>(result: Result<T, rusqlite::Error>) -> Result<Option<T>, rusqlite::Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads rows in one order and, if a damaged page is in the way, from the other end up to that page. `found` says whether
/// a row is new; returns whether all rows were reached.
pub(super) fn both_ways<P: Params + Clone>(
    connection: &Connection,
    (up, down): (&str, &str),
    parameters: P,
    mut found: impl FnMut(&Row<'_>) -> Result<bool, rusqlite::Error>,
) -> Result<bool, rusqlite::Error> {
    if tolerate(one_way(connection, up, parameters.clone(), false, &mut found))?.is_some() {
        return Ok(true);
    }
    tolerate(one_way(connection, down, parameters, true, &mut found))?;
    Ok(false)
}

fn one_way<P: Params>(
    connection: &Connection,
    sql: &str,
    parameters: P,
    until_known: bool,
    found: &mut impl FnMut(&Row<'_>) -> Result<bool, rusqlite::Error>,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut bad_rows = false;
    while let Some(row) = rows.next()? {
        // Where rows begin that were read from the other end, nothing new comes any more.
        match tolerate(found(row))? {
            Some(is_new) if is_new || !until_known => {}
            Some(_) => break,
            None => bad_rows = true,
        }
    }
    if bad_rows {
        return Err(rusqlite::Error::InvalidColumnType(
            0,
            "a damaged row".into(),
            rusqlite::types::Type::Null,
        ));
    }
    Ok(())
}

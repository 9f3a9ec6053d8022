//! What a demo found, and how to look further.

use serviceradar_materializers::inventory::{FINDINGS, Inventory, Totals, WORTH_RUNNING};

use crate::output::{self, Format};

/// Prints what the views hold.
pub(crate) async fn print(inventory: &mut Inventory, totals: Totals) -> anyhow::Result<()> {
    let Totals { devices, devices_of_kind, records } = totals;
    output::line(&format!(
        "{records} records became {devices} devices, {devices_of_kind} of them with a record of Armis."
    ))?;
    for question in FINDINGS {
        let answer = inventory.ask(question).await?;
        output::line(&format!("\n{}\n", question.title))?;
        if answer.rows.is_empty() {
            output::line("none")?;
            continue;
        }
        let columns: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
        output::rows(Format::Table, &columns, &answer.rows)?;
    }
    Ok(())
}

/// Prints how to ask the database.
pub(crate) fn print_further(url: &str) -> anyhow::Result<()> {
    output::line(&format!("\nLook further\n\npsql '{url}'"))?;
    for question in WORTH_RUNNING {
        output::line(&format!("\n-- {}\n{};", question.title, question.sql))?;
    }
    Ok(())
}

/// The URL of a database, for somebody who reads a tenant's views there. `private`: whether the password in
/// it is ours to tell.
pub(crate) fn url(url: &str, tenant: &str, private: bool) -> String {
    let settings = format!("options=-c%20serviceradar.tenant%3D{tenant}%20-c%20search_path%3Dserviceradar");
    let url = if private { url.to_owned() } else { without_password(url) };
    let and = if url.contains('?') { '&' } else { '?' };
    format!("{url}{and}{settings}")
}

fn without_password(url: &str) -> String {
    let found = url.split_once("://").and_then(|(scheme, rest)| {
        let (login, at) = rest.split_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}@{at}"))
    });
    found.unwrap_or_else(|| url.to_owned())
}

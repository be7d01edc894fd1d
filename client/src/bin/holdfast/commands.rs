//! What each command does: ask the server, print the answer.

use std::env;
use std::io::{Write, stderr};

use holdfast::{Client, Endpoint, NewMap, Pages, Retry};
use serde_json::{Value as Json, json};

use crate::args::{
    AdminCommand, Cli, Command, Common, CreateArgs, DeleteArgs, Format, GetArgs, ListArgs, MapCommand, MapCreateArgs,
    OwnerArgs, OwnerCommand, OwnerShowArgs, UpdateArgs,
};
use crate::batch;
use crate::describe::{
    ELEMENT_HEADER, MAP_HEADER, OWNER_HEADER, element_cells, element_json, info_json, map_cells, map_json, owner_cells,
    owner_json, stats_json,
};
use crate::failure::Failure;
use crate::generate;
use crate::output::{Listing, Output};
use crate::program;
use crate::value::{Input, ValueType, read_file, to_hex};

/// What a listing asks for at a time; the server makes a page shorter if it must.
pub const PAGE_SIZE: i32 = 1000;

/// Where the server listens, unless `--endpoint` tells it.
const ENDPOINT_VARIABLE: &str = "HOLDFAST_ENDPOINT";

pub type Done = Result<(), Failure>;

pub async fn run<W: Write>(cli: Cli, output: &mut Output<W>) -> Done {
    let client = || client(&cli.common);
    match cli.command {
        Command::Map(command) => map(&client()?, command, output).await,
        Command::Get(args) => get(&client()?, args, output).await,
        Command::Create(args) => create(&client()?, args, output).await,
        Command::Update(args) => update(&client()?, args, output).await,
        Command::Delete(args) => delete(&client()?, args, output).await,
        Command::List(args) => list(&client()?, args, output).await,
        Command::Batch(command) => batch::run(&client()?, command, output).await,
        Command::Owner(command) => owner(&client()?, command, output).await,
        Command::Program(command) => program::run(&client()?, command, output).await,
        Command::Admin(AdminCommand::Info) => Ok(output.record(&info_json(&client()?.info().await?))?),
        Command::Admin(AdminCommand::Stats) => Ok(output.record(&stats_json(&client()?.stats().await?))?),
        #[cfg(feature = "lab")]
        Command::Lab(command) => crate::lab::run(&cli.common, command, output).await,
        Command::Completion { shell } => Ok(output.bytes(&generate::completion(shell))?),
        Command::Man { dir: None } => Ok(output.bytes(&generate::main_page()?)?),
        Command::Man { dir: Some(directory) } => Ok(generate::all_pages(&directory)?),
    }
}

fn client(common: &Common) -> Result<Client, Failure> {
    let retry = if common.no_retry { Retry::OFF } else { Retry::default() };
    Ok(Client::builder(&endpoint(common)?)?.timeout(common.timeout).retry(retry).connect_lazy())
}

/// Where the server listens: as typed, as in the environment, or where it listens by default.
fn endpoint(common: &Common) -> Result<String, Failure> {
    let typed = common.endpoint.clone();
    let Some(set) = env::var_os(ENDPOINT_VARIABLE).filter(|set| typed.is_none() && !set.is_empty()) else {
        return Ok(typed.unwrap_or_else(|| Endpoint::default().to_string()));
    };
    // Who did not type it now has to be told where it comes from.
    match set.to_string_lossy().parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint.to_string()),
        Err(error) => Err(Failure::usage(format!("{ENDPOINT_VARIABLE}: {error}"))),
    }
}

async fn map<W: Write>(client: &Client, command: MapCommand, output: &mut Output<W>) -> Done {
    match command {
        MapCommand::Create(args) => {
            let map_id = client.create_map(new_map(args)?).await?;
            output.line(&json!({ "map_id": map_id }))?;
        }
        MapCommand::List => {
            listing(client.list_maps(), Listing::new(output, MAP_HEADER), map_cells, map_json).await?;
        }
        MapCommand::Show { name } => output.record(&map_json(&client.get_map(&name).await?))?,
        MapCommand::Free { name, expect_map_id } => {
            let freed = client.free_map(&name, expect_map_id).await?;
            output.line(&json!({ "freed_elements": freed }))?;
        }
    }
    Ok(())
}

fn new_map(args: MapCreateArgs) -> Result<NewMap, Failure> {
    let value_type = args.value_type.unwrap_or_default();
    let value_size = match (args.value_size, ValueType::named(&value_type).size()) {
        (Some(given), Some(implied)) if given != implied => {
            let what = format!("--value-size {given}: a value of type {value_type} has {implied} bytes");
            return Err(Failure::usage(what));
        }
        (Some(given), _) => given,
        (None, Some(implied)) => implied,
        (None, None) => {
            let what = format!(
                "--type {value_type} does not tell how large a value is, as u32, u64 and i64 do: add --value-size BYTES"
            );
            return Err(Failure::usage(what));
        }
    };
    let map = NewMap::new(args.name, args.kind.into(), value_size).value_type(value_type);
    Ok(match args.max_elements {
        Some(elements) => map.max_elements(elements),
        None => map,
    })
}

async fn get<W: Write>(client: &Client, args: GetArgs, output: &mut Output<W>) -> Done {
    let (map, owner) = (&args.map, named(args.owner)?);
    let got = match (args.create, args.value.input()) {
        (false, None) => client.get(map, &owner).await?,
        (true, None) => client.get_or_create(map, &owner, None).await?,
        (_, Some(input)) => client.get_or_create(map, &owner, Some(&bytes(client, map, input).await?)).await?,
    };
    if args.raw {
        return Ok(output.bytes(&got.value)?);
    }
    let value_type = ValueType::named(&client.get_map(map).await?.value_type);
    let answer = json!({
        "value": value_type.read(&got.value),
        "hex": to_hex(&got.value),
        "version": got.version,
        "owner_id": got.owner_id,
        "created": got.created,
    });
    output.value(&value_type.print(&got.value), &answer)?;
    if args.verbose && output.format == Format::Table {
        // Whoever closed stderr does not want to know.
        _ = writeln!(stderr(), "version {} owner_id {} created {}", got.version, got.owner_id, got.created);
    }
    Ok(())
}

async fn create<W: Write>(client: &Client, args: CreateArgs, output: &mut Output<W>) -> Done {
    let value = bytes(client, &args.map, given(args.value.input())?).await?;
    let created = client.create(&args.map, &named(args.owner)?, &value).await?;
    Ok(output.line(&json!({ "version": created.version, "owner_id": created.owner_id }))?)
}

async fn update<W: Write>(client: &Client, args: UpdateArgs, output: &mut Output<W>) -> Done {
    let value = bytes(client, &args.map, given(args.value.input())?).await?;
    let owner = named(args.owner)?;
    let updated = client.update_if(&args.map, &owner, &value, args.mode.into(), args.expect.into()).await?;
    Ok(output.line(&json!({ "version": updated.version, "owner_id": updated.owner_id }))?)
}

async fn delete<W: Write>(client: &Client, args: DeleteArgs, output: &mut Output<W>) -> Done {
    let deleted = client.delete_if(&args.map, &named(args.owner)?, args.expect.into()).await?;
    Ok(output.line(&json!({ "owner_id": deleted.owner_id }))?)
}

async fn list<W: Write>(client: &Client, args: ListArgs, output: &mut Output<W>) -> Done {
    let value_type = ValueType::named(&client.get_map(&args.map).await?.value_type);
    listing(
        client.list_elements(&args.map),
        Listing::new(output, ELEMENT_HEADER),
        |element| element_cells(element, value_type),
        |element| element_json(element, value_type),
    )
    .await
}

async fn owner<W: Write>(client: &Client, command: OwnerCommand, output: &mut Output<W>) -> Done {
    match command {
        OwnerCommand::Show(args) => {
            let kind = args.kind.map(Into::into);
            let owner = client.get_owner(&shown(args)?, kind).await?;
            output.record(&owner_json(&owner))?;
        }
        OwnerCommand::List { kind } => {
            let owners = client.list_owners(kind.map(Into::into));
            listing(owners, Listing::new(output, OWNER_HEADER), owner_cells, owner_json).await?;
        }
        OwnerCommand::CreateSimulated(args) => {
            let created = client.create_simulated_owners(args.kind.into(), args.first, args.count).await?;
            output.line(&json!({ "created": created }))?;
        }
        OwnerCommand::DestroySimulated(args) => {
            let destroyed = client.destroy_simulated_owners(args.kind.into(), args.first, args.count).await?;
            output.line(&json!({ "destroyed": destroyed }))?;
        }
    }
    Ok(())
}

pub async fn listing<T, W: Write>(
    pages: Pages<T>,
    mut listing: Listing<'_, W>,
    cells: impl Fn(&T) -> Vec<String>,
    json: impl Fn(&T) -> Json,
) -> Done {
    let mut pages = pages.page_size(PAGE_SIZE);
    while let Some(page) = pages.next().await? {
        listing.page(&page, &cells, &json)?;
    }
    Ok(listing.end()?)
}

/// The bytes of a value. A text is as long as it is, but for maps of type utf8, where NULs fill it up to the value
/// size, as a reader takes them away again.
async fn bytes(client: &Client, map: &str, input: Input) -> Result<Vec<u8>, Failure> {
    match input {
        Input::Bytes(bytes) => Ok(bytes),
        Input::File(path) => read_file(&path),
        Input::Text(text) => {
            let map = client.get_map(map).await?;
            let mut bytes = text.into_bytes();
            if ValueType::named(&map.value_type) == ValueType::Utf8 {
                bytes.resize(bytes.len().max(map.value_size as usize), 0);
            }
            Ok(bytes)
        }
    }
}

fn named(owner: OwnerArgs) -> Result<holdfast::Owner, Failure> {
    owner.owner().ok_or_else(|| Failure::usage("whose value? See --help".to_owned()))
}

fn given(input: Option<Input>) -> Result<Input, Failure> {
    input.ok_or_else(|| Failure::usage("which value? See --help".to_owned()))
}

/// `owner show PID` and `owner show --task PID` are the same.
fn shown(mut args: OwnerShowArgs) -> Result<holdfast::Owner, Failure> {
    if args.owner.simulated.is_some() && args.kind.is_none() {
        return Err(Failure::usage("--simulated needs --kind: tasks and cgroups have ids of their own".to_owned()));
    }
    args.owner.task = args.owner.task.or(args.pid);
    named(args.owner)
}

//! The multicast routing table of a chip, and its fixed route.

use spinnaker_wire::router::{COPY_ENTRIES, CopyEntry, ENTRIES, ENTRY_BYTES, LoadEntry, Route};
use spinnaker_wire::scp::{AllocCommand, Command, CommandCode, RouterCommand, word_reply};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::SDRAM_SYS_ADDRESS;
use spinnaker_wire::{AppId, ChipAddress};
use zerocopy::IntoBytes;

use crate::link::Link;
use crate::{Boards, HostError, Result, Transceiver};

/// How often entries are asked for, and the account looked at, before silence is an error: half a second each, and a board that
/// is gone is noticed by the first look.
const TAKE_TRIES: u32 = 7;

/// A route to be loaded; cores are virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Links and cores.
    pub route: Route,
    /// Key; no bits outside the mask.
    pub key: u32,
    /// Mask.
    pub mask: u32,
}

impl<L: Link> Transceiver<L> {
    /// Loads routes for an application into free entries of a chip, and returns the first entry's number. If loading fails, the
    /// entries are freed again. A request that the network doubles may take entries that nobody uses; they end with the
    /// application.
    ///
    /// # Errors
    /// [`HostError::Exhausted`], [`HostError::Wire`] for a key outside its mask, and those of [`Transceiver::request`].
    pub async fn load_routes(&mut self, chip: ChipAddress, app: AppId, routes: &[RouteEntry]) -> Result<u32> {
        let table = table(routes)?;
        let monitor = Endpoint::core(chip, 0);
        let count = routes.len() as u32;
        let first = self.take_routes(chip, app, count).await?;
        let load = RouterCommand::Load { app, count: count as u16, table: SDRAM_SYS_ADDRESS, base: first };
        let loaded = async {
            self.write(monitor, SDRAM_SYS_ADDRESS, &table).await?;
            self.request(monitor, &Command::Router(load)).await
        };
        if let Err(error) = loaded.await {
            // If the board is gone, so is the block; the first error is the one to tell.
            let _ = self.free_routes(chip, first).await;
            return Err(error);
        }
        Ok(first)
    }

    /// Frees a block of routing entries and clears it.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn free_routes(&mut self, chip: ChipAddress, first: u32) -> Result<()> {
        let command = Command::Alloc(AllocCommand::FreeRoutes { first, clear: true });
        self.request(Endpoint::core(chip, 0), &command).await.map(drop)
    }

    /// Frees all routing entries of an application on a chip and clears them.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn free_routes_of(&mut self, chip: ChipAddress, app: AppId) -> Result<u32> {
        let command = Command::Alloc(AllocCommand::FreeRoutesOf { app, clear: true });
        self.request_word(Endpoint::core(chip, 0), &command).await
    }

    /// Clears all routes of users on a chip.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn clear_routes(&mut self, chip: ChipAddress) -> Result<()> {
        self.request(Endpoint::core(chip, 0), &Command::Router(RouterCommand::ClearAll)).await.map(drop)
    }

    /// Takes free entries in a row. A request whose reply is lost is not repeated blindly, which would take as many again: the
    /// monitor's own account tells whether it was carried out.
    async fn take_routes(&mut self, chip: ChipAddress, app: AppId, count: u32) -> Result<u32> {
        let command = Command::Alloc(AllocCommand::Routes { app, count });
        let answer = self.request_word(Endpoint::core(chip, 0), &command).await;
        self.taken_routes(chip, app, count, answer).await
    }

    /// What an answer to a request for entries means; where it leaves that open, the account tells, and then another request.
    async fn taken_routes(
        &mut self,
        chip: ChipAddress,
        app: AppId,
        count: u32,
        mut answer: Result<u32>,
    ) -> Result<u32> {
        for _ in 0..TAKE_TRIES {
            let error = match answer {
                // "None" may be the reply to the second copy of a request that the network has doubled.
                Ok(0) => Some(HostError::Exhausted { chip, wanted: format!("{count} routing entries in a row") }),
                Err(HostError::Silent { .. }) => None,
                answer => return answer,
            };
            if let Some(first) = self.unused_block(chip, app, count).await? {
                return Ok(first);
            } else if let Some(error) = error {
                return Err(error);
            }
            let command = Command::Alloc(AllocCommand::Routes { app, count });
            answer = self.request_word(Endpoint::core(chip, 0), &command).await;
        }
        answer
    }

    /// A block of entries of an application that has this size and holds no routes yet.
    async fn unused_block(&mut self, chip: ChipAddress, app: AppId, count: u32) -> Result<Option<u32>> {
        const OWNED: u16 = 0x8000;
        let table = self.route_copy(chip, 0, COPY_ENTRIES.into()).await?;
        let mut first = 1;
        // The first entry of a block has the number of the one behind it.
        while let Some(entry) = table.get(first).filter(|_| first < usize::from(ENTRIES)) {
            let next = usize::from(entry.next.get());
            let is_of_app = entry.free.get() == OWNED | u16::from(app.0);
            if is_of_app && next == first + count as usize && table[first..next].iter().all(CopyEntry::is_unused) {
                return Ok(Some(first as u32));
            } else if next <= first || next >= table.len() {
                break;
            }
            first = next;
        }
        Ok(None)
    }

    /// Part of the monitor's copy of the table.
    async fn route_copy(&mut self, chip: ChipAddress, first: u32, count: usize) -> Result<Vec<CopyEntry>> {
        let address = self.system_variables(chip).await?.rtr_copy.get() + first * ENTRY_BYTES as u32;
        let bytes = self.read(Endpoint::core(chip, 0), address, count * ENTRY_BYTES).await?;
        let entries = bytes.chunks_exact(ENTRY_BYTES).map(|bytes| CopyEntry::read(bytes).map(|(entry, _)| *entry));
        Ok(entries.collect::<std::result::Result<_, _>>()?)
    }

    /// The routes of a chip's table: number of the entry, application that loaded it, and the route. Entry 0 is the monitors'.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn routes(&mut self, chip: ChipAddress) -> Result<Vec<(u32, AppId, RouteEntry)>> {
        let table = self.route_copy(chip, 0, ENTRIES.into()).await?;
        let used = (0..).zip(table).filter(|(_, entry)| !entry.is_unused());
        let routes = used.map(|(number, entry)| {
            let app = entry.owner().map_or(AppId(0), |(app, _)| app);
            let route = Route(entry.route.get() & 0x00FF_FFFF);
            (number, app, RouteEntry { route, key: entry.key.get(), mask: entry.mask.get() })
        });
        Ok(routes.collect())
    }

    /// Sets where packets of type "fixed route" go from a chip; cores are virtual.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn set_fixed_route(&mut self, chip: ChipAddress, app: AppId, route: Route) -> Result<()> {
        let command = Command::Router(RouterCommand::WriteFixedRoute { app, route: route.0 });
        self.request(Endpoint::core(chip, 0), &command).await.map(drop)
    }

    /// Where packets of type "fixed route" go from a chip; cores are virtual.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn fixed_route(&mut self, chip: ChipAddress) -> Result<Route> {
        let command = Command::Router(RouterCommand::ReadFixedRoute { app: AppId(0) });
        Ok(Route(self.request_word(Endpoint::core(chip, 0), &command).await? & 0x00FF_FFFF))
    }
}

impl<L: Link> Boards<L> {
    /// [`Transceiver::load_routes`] on many chips at once. If loading fails, the application has no routes on them.
    ///
    /// # Errors
    /// As that.
    pub async fn load_routes_many(&mut self, app: AppId, tables: &[(ChipAddress, Vec<RouteEntry>)]) -> Result<()> {
        // Looked at before anything is taken.
        let contents: Vec<Vec<u8>> = tables.iter().map(|(_, routes)| table(routes)).collect::<Result<_>>()?;
        let loaded = self.take_and_load(app, tables, &contents).await;
        if loaded.is_err() {
            let command = Command::Alloc(AllocCommand::FreeRoutesOf { app, clear: true });
            let questions: Vec<_> = tables.iter().map(|(chip, _)| (*chip, command)).collect();
            // If a board is gone, so are the blocks; the first error is the one to tell.
            let _ = self.ask_many(&questions, 0).await;
        }
        loaded
    }

    async fn take_and_load(
        &mut self,
        app: AppId,
        tables: &[(ChipAddress, Vec<RouteEntry>)],
        contents: &[Vec<u8>],
    ) -> Result<()> {
        let count = |routes: &[RouteEntry]| routes.len() as u32;
        let take = tables
            .iter()
            .map(|(chip, routes)| (*chip, Command::Alloc(AllocCommand::Routes { app, count: count(routes) })));
        // One whose answer is lost is looked after by itself.
        let note = |error| if matches!(error, HostError::Silent { .. }) { Ok(error) } else { Err(error) };
        let mut loads = Vec::with_capacity(tables.len());
        for (number, answer) in self.ask_each(&take.collect::<Vec<_>>(), 4, note).await? {
            let (chip, routes) = &tables[number];
            let word = match answer {
                Ok(payload) => Ok(word_reply(CommandCode::Alloc, &payload)?),
                Err(error) => Err(error),
            };
            let base = self.at(*chip).taken_routes(*chip, app, count(routes), word).await?;
            let load = RouterCommand::Load { app, count: routes.len() as u16, table: SDRAM_SYS_ADDRESS, base };
            loads.push((*chip, Command::Router(load)));
        }
        let writes: Vec<_> =
            tables.iter().zip(contents).map(|((chip, _), table)| (*chip, SDRAM_SYS_ADDRESS, &table[..])).collect();
        self.write_many(&writes).await?;
        self.ask_many(&loads, 0).await.map(drop)
    }
}

/// Routes as the monitor takes them.
fn table(routes: &[RouteEntry]) -> Result<Vec<u8>> {
    if routes.is_empty() || routes.len() > 1023 {
        return Err(HostError::Argument(format!("{} routes: a chip takes 1 to 1023", routes.len())));
    }
    let mut table = Vec::new();
    for (index, entry) in routes.iter().enumerate() {
        let entry = LoadEntry::new(index as u16, entry.route, entry.key, entry.mask)?;
        table.extend_from_slice(entry.as_bytes());
    }
    Ok(table)
}

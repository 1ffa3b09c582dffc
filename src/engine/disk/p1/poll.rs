//! `poll_oneoff` with files in it. A regular file is always ready (poll(2)), and is answered here: to find out, wasmtime-wasi
//! has a thread read of it, and neither waits for that thread nor stops it, so that a guest which polls again and again had as
//! many reads under way, and files open, as it liked.

use super::{Known, P1, Result};
use wasmtime_wasi::p1::types::{
    Clockid, Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Size, Subclockflags, Subscription,
    SubscriptionClock, SubscriptionU,
};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wiggle::{GuestMemory, GuestPtr, GuestType};

impl P1 {
    pub(super) async fn poll(
        &mut self,
        mem: &mut GuestMemory<'_>,
        subscriptions: GuestPtr<Subscription>,
        events: GuestPtr<Event>,
        n: Size,
    ) -> Result<Size> {
        let each = size_of::<Subscription>() + size_of::<Option<Known>>() + size_of::<Event>();
        if usize::try_from(n)?.checked_mul(each).is_none_or(|bytes| bytes > self.fuel) {
            return Err(Errno::Nomem.into());
        }
        let mut asked = vec![];
        for subscription in subscriptions.as_array(n).iter() {
            let subscription = mem.read(subscription?)?;
            let file = match &subscription.u {
                SubscriptionU::FdRead(on) | SubscriptionU::FdWrite(on) => self.file(mem, on.file_descriptor),
                SubscriptionU::Clock(_) => None,
            };
            asked.push((subscription, file));
        }
        if asked.iter().all(|(_, file)| file.is_none()) {
            return self.ctx.poll_oneoff(mem, subscriptions, events, n).await;
        }
        let mut others = self.ready_besides(&asked).await?.into_iter().peekable();
        let places = events.as_array(n);
        let mut places = places.iter();
        let mut count = 0;
        for (at, (subscription, file)) in (0..).zip(&asked) {
            let event = match file {
                Some(file) => self.of_file(mem, subscription, *file)?,
                None => match others.next_if(|event| event.userdata == at) {
                    Some(event) => Event { userdata: subscription.userdata, ..event },
                    None => continue,
                },
            };
            mem.write(places.next().ok_or(Errno::Overflow)??, event)?;
            count += 1;
        }
        Ok(count)
    }

    /// What is ready now of all that is no file: its events in their order, each with its place among `asked` for its user data.
    /// The context is asked in memory that is not the guest's, with a clock in the list that is ready in any case.
    async fn ready_besides(&mut self, asked: &[(Subscription, Option<Known>)]) -> Result<Vec<Event>> {
        let others = (0..).zip(asked).filter(|(_, (_, file))| file.is_none());
        let mut list: Vec<Subscription> =
            others.map(|(at, (other, _))| Subscription { userdata: at, u: other.u.clone() }).collect();
        if list.is_empty() {
            return Ok(vec![]);
        }
        let now = SubscriptionClock { id: Clockid::Monotonic, timeout: 0, precision: 0, flags: Subclockflags::empty() };
        list.push(Subscription { userdata: u64::MAX, u: SubscriptionU::Clock(now) });
        let n = Size::try_from(list.len())?;
        let list_bytes = n.checked_mul(Subscription::guest_size()).ok_or(Errno::Overflow)?;
        let events_bytes = n.checked_mul(Event::guest_size()).ok_or(Errno::Overflow)?;
        let align = Subscription::guest_align().max(Event::guest_align());
        let bytes = usize::try_from(list_bytes)? + usize::try_from(events_bytes)?;
        let mut bytes = vec![0; bytes + align];
        let aligned = bytes.as_ptr().align_offset(align);
        let mut mem = GuestMemory::Unshared(&mut bytes[aligned..]);
        let (subscriptions, events) = (GuestPtr::new(0), GuestPtr::new(list_bytes));
        for (place, subscription) in subscriptions.as_array(n).iter().zip(list) {
            mem.write(place?, subscription)?;
        }
        let ready = self.ctx.poll_oneoff(&mut mem, subscriptions, events, n).await?;
        events.as_array(ready).iter().map(|event| Ok(mem.read(event?)?)).collect()
    }

    fn of_file(&mut self, mem: &mut GuestMemory<'_>, subscription: &Subscription, file: Known) -> Result<Event> {
        let mut flags = Eventrwflags::empty();
        let type_ = match &subscription.u {
            SubscriptionU::FdRead(on) => {
                let at = self.ctx.fd_tell(mem, on.file_descriptor)?;
                let size = self.disk.open.get(&file.handle).and_then(|pin| pin.file().metadata().ok());
                if size.is_none_or(|meta| meta.len() <= at) {
                    flags |= Eventrwflags::FD_READWRITE_HANGUP;
                }
                Eventtype::FdRead
            }
            _ => Eventtype::FdWrite,
        };
        // As wasmtime-wasi, which does not say how many bytes either.
        let fd_readwrite = EventFdReadwrite { nbytes: 1, flags };
        Ok(Event { userdata: subscription.userdata, error: Errno::Success, type_, fd_readwrite })
    }
}

//! The serving end of links to other workers (docs/links.md).
//!
//! A request goes through the worker's own handler between two of its jobs, with a private copy of
//! what came. It is no job of the bridge's: no started mark, no place in the counters. Whatever
//! comes on a link while its request is served takes that back, and so does the link's end.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::io;
use std::os::raw::c_int;
use std::os::unix::io::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::channel::{Level, Logger};
use crate::job::{Cancel, Job};
use crate::kit::Kit;
use crate::layout::*;
use crate::packet::{u64_of, Incoming};
use crate::peer_wire::{Fault, Inbox, Socket, PEER_BYTES_MAX};
use crate::room::Room;
use crate::serve::{settle, Outcome, Service};
use crate::socket::{head, Sent, Unsent};
use crate::sys::{self, now_ns};
use crate::{term, Error};

const LINKS_MAX: usize = 256;
/// Between two looks at a link in the midst of its request.
const LOOK_EVERY_NS: u64 = 1_000_000;
/// What the poller says of the channel; of a link it says its place.
const CHANNEL: u64 = u64::MAX;

/// The links over which other workers ask this one; the handler's thread.
#[derive(Debug, Default)]
pub struct Links {
    poller: Cell<Option<RawFd>>, // of the channel and the links, for good; None: it serves nobody
    channel: Cell<Option<RawFd>>, // among them
    places: RefCell<Vec<Option<Served>>>,
    count: Cell<usize>,
    inbox: RefCell<Inbox>,
}

#[derive(Debug)]
struct Served {
    socket: Socket,
    link: u64,
    last_id: u64,
}

impl Links {
    /// While there are links: what becomes readable with one of them, or with the channel.
    pub fn poller_of_some(&self) -> Option<RawFd> {
        self.poller.get().filter(|_| self.count.get() > 0)
    }

    /// The channel is closed, and would be readable for ever.
    pub fn forget_channel(&self) {
        if let (Some(poller), Some(channel)) = (self.poller.get(), self.channel.take()) {
            // SAFETY: no memory is touched.
            unsafe { sys::epoll_ctl(poller, sys::EPOLL_CTL_DEL, channel, core::ptr::null_mut()) };
        }
    }
}

fn watch(poller: RawFd, fd: RawFd, place: u64) -> io::Result<()> {
    let mut event = sys::epoll_event { events: sys::EPOLLIN, data: place };
    // SAFETY: reads the event.
    sys::check(unsafe { sys::epoll_ctl(poller, sys::EPOLL_CTL_ADD, fd, &mut event) }).map(|_| ())
}

// --- links come and go ---------------------------------------------------------------------------

/// Says that this worker serves others, before the hello. One that cannot is a good worker all the
/// same.
pub fn offer_service(kit: &Kit) {
    let channel = match kit.outlet.fd() {
        Ok(channel) => channel,
        Err(_) => return,
    };
    // SAFETY: no memory is touched; the descriptor is new, and ours to close.
    let poller = match sys::check(unsafe { sys::epoll_create1(sys::EPOLL_CLOEXEC) }) {
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        Err(_) => return,
    };
    let id = kit.next_id();
    let told = watch(poller.as_raw_fd(), channel, CHANNEL).is_ok()
        && kit.send_packet(None, head(PACKET_PEER_OPEN, id, 0), &[], None).is_ok()
        && kit.await_reply(None, id, None).is_ok();
    if told {
        kit.links.channel.set(Some(channel));
        kit.links.poller.set(Some(poller.into_raw_fd()));
        kit.listens.set(true); // offers come at any time
    }
}

/// Takes a link that the bridge offers. One that is not taken is closed, which tells who asked.
pub fn take_offer(kit: &Kit, offer: Incoming) {
    let (fd, link) = match offer.fd {
        Some(fd) if offer.body.len() >= 8 => (fd, u64_of(&offer.body)),
        _ => kit.broken_channel("a link was offered without its number or its socket"),
    };
    let links = &kit.links;
    let poller = match links.poller.get() {
        Some(poller) => poller,
        None => return,
    };
    let mut places = links.places.borrow_mut();
    let place = places.iter().position(Option::is_none).unwrap_or(places.len());
    if place == LINKS_MAX || watch(poller, fd.as_raw_fd(), place as u64).is_err() {
        return;
    }
    if place == places.len() {
        places.push(None);
    }
    places[place] = Some(Served { socket: Socket::new(fd), link, last_id: 0 });
    links.count.set(links.count.get() + 1);
}

fn end_link(kit: &Kit, place: usize, rule: Option<&str>) {
    let served = kit.links.places.borrow_mut()[place].take();
    kit.links.count.set(kit.links.count.get() - 1);
    if let (Some(Served { link, .. }), Some(rule)) = (served, rule) {
        // Without a channel nobody hears it.
        let _ = Logger::of(kit).log(Level::Warning, &format!("link {link} is dropped: {rule}"));
    }
}

// --- requests ------------------------------------------------------------------------------------

/// Serves one request of each link that has one: how many. A comparison while there is no link.
pub fn serve(kit: &'static Kit, service: &mut dyn Service) -> usize {
    let poller = match kit.links.poller_of_some() {
        Some(poller) => poller,
        None => return 0,
    };
    let mut ready = [sys::epoll_event::default(); LINKS_MAX + 1];
    // SAFETY: as many events as the count says.
    let count = unsafe { sys::epoll_wait(poller, ready.as_mut_ptr(), ready.len() as c_int, 0) };
    let mut served = 0;
    for event in &ready[..usize::try_from(count).unwrap_or(0)] {
        let place = event.data;
        if place == CHANNEL {
            continue;
        }
        if kit.control() != CONTROL_RUN {
            break;
        }
        if served == 0 {
            kit.publish(); // answers do not wait behind another worker's request
        }
        served += usize::from(take(kit, service, place as usize));
    }
    served
}

/// One message of a link. Was it a request, and served?
fn take(kit: &'static Kit, service: &mut dyn Service, place: usize) -> bool {
    // Taken, and the places not borrowed, while a handler runs: it may be offered more links.
    let mut inbox = kit.links.inbox.take();
    let found = match &mut kit.links.places.borrow_mut()[place] {
        Some(served) => next_request(&mut inbox, served),
        None => Ok(None),
    };
    let served = match found {
        Ok(None) => false,
        Ok(Some((id, fd))) => {
            serve_one(kit, service, &inbox, (place, id, fd));
            true
        }
        Err(fault) => {
            let rule = if let Fault::Broke(rule) = fault { Some(rule) } else { None };
            end_link(kit, place, rule);
            false
        }
    };
    kit.links.inbox.replace(inbox);
    served
}

/// A request that keeps the rules: its number, and the link's descriptor.
fn next_request(inbox: &mut Inbox, on: &mut Served) -> Result<Option<(u64, RawFd)>, Fault> {
    let head = match inbox.receive(&on.socket)? {
        // FORGET: of a request that is answered already.
        None | Some(Packet { kind: PACKET_FORGET, .. }) => return Ok(None),
        Some(head) => head,
    };
    let (request, payload) = (inbox.request(), inbox.payload());
    let rule = if head.kind != PACKET_CALL {
        "a message that is neither a request nor its end"
    } else if head.id <= on.last_id {
        "the number of a request is not above the last one"
    } else if request.payload_bytes as usize != payload.len() {
        "a payload of another size than announced"
    } else if request.flags & !FLAG_TERM != 0 {
        "a request with flags that none has"
    } else if request.flags & FLAG_TERM != 0 && !term::is_one(payload) {
        "a term that is not well-formed"
    } else {
        on.last_id = head.id;
        return Ok(Some((head.id, on.socket.fd())));
    };
    Err(Fault::Broke(rule))
}

fn serve_one(
    kit: &'static Kit,
    service: &mut dyn Service,
    inbox: &Inbox,
    (place, id, fd): (usize, u64, RawFd),
) {
    let (request, now) = (inbox.request(), now_ns());
    let job = Job {
        kit,
        slot: 0,
        position: 0,
        drained_ns: now,
        start_ns: now,
        parts: Cell::new(0),
        cancel: Cancel::of_peer(kit, &request, Asked::new(fd, now)),
        // Of so many bytes as the request says, which next_request() has checked.
        in_pool: Some(inbox.payload().as_ptr()),
        request,
    };
    let returned = if job.is_cancelled() { Err(Error::Cancelled) } else { service.handle(&job) };
    let (status, code, answer): Outcome = settle(&job, returned);
    let mut reply = job.completion(status, answer.flags, answer.room.len(), now_ns());
    reply.code = code;
    reply.queue_ns = 0;
    let sent = match &kit.links.places.borrow()[place] {
        Some(served) => served.socket.send_reply(id, reply, &answer.room),
        None => return,
    };
    match sent {
        Ok(Sent::Whole) => {}
        Ok(Sent::NoRoom) => end_link(kit, place, Some("who asks does not read the answers")),
        Err(Unsent::Closed | Unsent::System(_)) => end_link(kit, place, None),
    }
}

/// Room for an answer to another worker.
#[cold]
pub fn room(bytes: usize) -> Result<Room, Error> {
    let too_large = Error::TooLarge { bytes, limit: PEER_BYTES_MAX };
    if bytes > PEER_BYTES_MAX {
        return Err(too_large);
    }
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| too_large)?;
    room.resize(bytes, 0);
    Ok(Room::private(room))
}

/// What is known of a request that is being served. Any thread of its handler may look.
#[derive(Debug)]
pub struct Asked {
    link: RawFd,
    looked_ns: AtomicU64, // relaxed, both: a late look is a look one millisecond later
    taken_back: AtomicBool,
}

impl Asked {
    fn new(link: RawFd, now: u64) -> Asked {
        Asked { link, looked_ns: AtomicU64::new(now), taken_back: AtomicBool::new(false) }
    }

    /// Whatever comes on the link takes the request back.
    pub fn is_taken_back(&self) -> bool {
        if self.taken_back.load(Relaxed) {
            return true;
        }
        let now = now_ns();
        if now - self.looked_ns.load(Relaxed) < LOOK_EVERY_NS {
            return false;
        }
        self.looked_ns.store(now, Relaxed);
        let mut look = sys::pollfd { fd: self.link, events: sys::POLLIN, revents: 0 };
        // SAFETY: one pollfd, as the count says.
        let something = unsafe { sys::poll(&mut look, 1, 0) } > 0;
        if something {
            self.taken_back.store(true, Relaxed);
        }
        something
    }
}

//! rb-pathfinding: the role *pathfinding*, shortest routes by sea (docs/pathfinding.md).
//!
//!     rb-pathfinding MASK                                     serves a bridge
//!     rb-pathfinding MASK route LAT LON LAT LON [FILE.png]    one route, without a bridge

use std::path::Path;
use std::process::ExitCode;

use rb_pathfinding::payload::{of_term, of_text, term_of, text_of};
use rb_pathfinding::picture::draw;
use rb_pathfinding::route::{find, Failure, Route};
use rb_pathfinding::sea::Sea;
use rb_pathfinding::sphere::Place;
use ringbridge_worker::{Answer, Error, Job, Op, Takes, Worker};

const ROUTE: u16 = 0;
const PICTURE: u16 = 1;

const CODE_UNKNOWN_OPCODE: u16 = 1;
const CODE_BAD_PAYLOAD: u16 = 2;
const CODE_ASHORE: u16 = 3;
const CODE_APART: u16 = 4;

const PICTURE_HEIGHT: usize = 1000;

// sysexits.h
const EXIT_USAGE: u8 = 64;
const EXIT_DATA: u8 = 65;
const EXIT_NO_INPUT: u8 = 66;

fn handle(sea: &Sea, job: &Job) -> Result<Answer, Error> {
    if job.opcode() > PICTURE {
        let why = format!("opcode must be {ROUTE} or {PICTURE}, got {}", job.opcode());
        return Err(Error::failed(CODE_UNKNOWN_OPCODE, why));
    }
    let ends = if job.payload_is_term() { of_term(job.payload()) } else { of_text(job.payload()) };
    let (from, to) = ends.ok_or_else(|| {
        let why = "the payload must be two places: \"LATITUDE LONGITUDE LATITUDE LONGITUDE\" in \
                   degrees, or the term {{Latitude, Longitude}, {Latitude, Longitude}}";
        Error::failed(CODE_BAD_PAYLOAD, why)
    })?;
    let route = find(sea, from, to, |share| {
        job.check()?;
        job.progress(format!("{:.0} %", 100.0 * share).as_bytes())?;
        Ok(())
    })
    .map_err(|failure| match failure {
        Failure::Stopped(error) => error,
        Failure::Ashore(_) => Error::failed(CODE_ASHORE, told(&failure)),
        Failure::Apart => Error::failed(CODE_APART, told(&failure)),
    })?;
    if job.opcode() == PICTURE {
        job.answer(&draw(sea, &route, PICTURE_HEIGHT))
    } else if job.payload_is_term() {
        job.answer_term(&term_of(&route))
    } else {
        job.answer(text_of(&route).as_bytes())
    }
}

fn told<E>(failure: &Failure<E>) -> String {
    match failure {
        Failure::Ashore(Place { latitude, longitude }) => {
            format!("{latitude} {longitude} is more than 30 minutes of arc from the sea")
        }
        _ => "no way by sea joins the two: one lies on a sea of its own, or in the ice".into(),
    }
}

/// A route without a bridge: for tests and for the curious.
fn route(sea: &Sea, arguments: &[String]) -> Result<(), (u8, String)> {
    let numbers = arguments.get(..4).unwrap_or_default().join(" ");
    let (from, to) = of_text(numbers.as_bytes())
        .ok_or((EXIT_USAGE, "route takes LAT LON LAT LON, in degrees".into()))?;
    let found: Result<Route, Failure<()>> = find(sea, from, to, |_| Ok(()));
    let route = found.map_err(|failure| (EXIT_DATA, told(&failure)))?;
    print!("{}", text_of(&route));
    if let Some(file) = arguments.get(4) {
        std::fs::write(file, draw(sea, &route, PICTURE_HEIGHT))
            .map_err(|e| (EXIT_DATA, format!("{file}: {e}")))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let opened = match arguments.first() {
        Some(mask) => Sea::open(Path::new(mask)).map_err(|why| (EXIT_NO_INPUT, why)),
        None => Err((EXIT_USAGE, "which mask of the sea? (make -C workers/rust data)".into())),
    };
    let done = opened.and_then(|sea| match arguments.get(1).map(String::as_str) {
        Some("route") => route(&sea, &arguments[2..]).map(|()| ExitCode::SUCCESS),
        Some(other) => Err((EXIT_USAGE, format!("{other} is nothing that it does"))),
        None => Ok(Worker::new()
            .op(Op::new(ROUTE, "route").takes(Takes::Raw).takes(Takes::Term))
            .op(Op::new(PICTURE, "picture").takes(Takes::Raw).takes(Takes::Term))
            .serve(|job| handle(&sea, job))),
    });
    done.unwrap_or_else(|(status, why)| {
        eprintln!("rb-pathfinding: {why}");
        ExitCode::from(status)
    })
}

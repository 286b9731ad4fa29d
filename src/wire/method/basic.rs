//! The basic class: methods that come once per message are borrowed, amq-protocol parses the others.

use amq_protocol::protocol::basic::AMQPMethod;
use nom::bytes::complete::take;
use nom::{Err, IResult, Parser};

use super::client_method::{BasicAck, BasicNack, BasicPublish, BasicQos, BasicReject, ClientMethod, WithTable};
use super::layout::Field::{Bits, Long, LongLong, Short, Shortstr, Table};
use super::layout::{Layout, layout};
use crate::wire::table;

pub(super) const CLASS_ID: u16 = 60;

/// The methods that amq-protocol parses; [`parse_borrowed`] parses publish, ack, reject, nack and qos.
pub(super) const LAYOUTS: &[Layout] = &[
    layout(11, &[]),
    layout(20, &[Short, Shortstr, Shortstr, Bits, Table]),
    layout(21, &[Shortstr]),
    layout(30, &[Shortstr, Bits]),
    layout(31, &[Shortstr]),
    layout(50, &[Short, Shortstr, Shortstr, Shortstr]),
    layout(60, &[Shortstr, LongLong, Bits, Shortstr, Shortstr]),
    layout(70, &[Short, Shortstr, Bits]),
    layout(71, &[LongLong, Bits, Shortstr, Shortstr, Long]),
    layout(72, &[Shortstr]),
    layout(100, &[Bits]),
    layout(110, &[Bits]),
    layout(111, &[]),
];

/// Parses a method that amq-protocol does not: `None` for another method, `Some(None)` when the fields are malformed.
#[inline]
pub(super) fn parse_borrowed(method_id: u16, fields: &[u8]) -> Option<Option<ClientMethod<'_>>> {
    Some(match method_id {
        40 => whole(publish(fields)).map(ClientMethod::BasicPublish),
        80 => whole(ack(fields)).map(ClientMethod::BasicAck),
        90 => whole(reject(fields)).map(ClientMethod::BasicReject),
        120 => whole(nack(fields)).map(ClientMethod::BasicNack),
        10 => whole(qos(fields)).map(ClientMethod::BasicQos),
        _ => return None,
    })
}

/// The result of a parser, if no bytes are left over.
#[inline]
fn whole<T>(parsed: Parsed<'_, T>) -> Option<T> {
    match parsed {
        Ok(([], method)) => Some(method),
        _ => None,
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

/// A number's octets in one step; nom's own number parsers fold over the elements of any kind of input.
#[inline]
fn octets<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk() {
        Some((octets, rest)) => Ok((rest, *octets)),
        None => Err(Err::Error(())),
    }
}

#[inline]
fn octet(input: &[u8]) -> Parsed<'_, u8> {
    octets.map(u8::from_be_bytes).parse(input)
}

#[inline]
fn short(input: &[u8]) -> Parsed<'_, u16> {
    octets.map(u16::from_be_bytes).parse(input)
}

#[inline]
fn long(input: &[u8]) -> Parsed<'_, u32> {
    octets.map(u32::from_be_bytes).parse(input)
}

#[inline]
fn long_long(input: &[u8]) -> Parsed<'_, u64> {
    octets.map(u64::from_be_bytes).parse(input)
}

#[inline]
fn shortstr(input: &[u8]) -> Parsed<'_, &[u8]> {
    octet.flat_map(take).parse(input)
}

#[inline]
fn publish(input: &[u8]) -> Parsed<'_, BasicPublish<'_>> {
    let (input, _ticket) = short(input)?;
    let (input, exchange) = shortstr(input)?;
    let (input, routing_key) = shortstr(input)?;
    let (input, bits) = octet(input)?;
    Ok((input, BasicPublish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 }))
}

#[inline]
fn ack(input: &[u8]) -> Parsed<'_, BasicAck> {
    let (input, delivery_tag) = long_long(input)?;
    let (input, bits) = octet(input)?;
    Ok((input, BasicAck { delivery_tag, multiple: bits & 1 != 0 }))
}

#[inline]
fn nack(input: &[u8]) -> Parsed<'_, BasicNack> {
    let (input, delivery_tag) = long_long(input)?;
    let (input, bits) = octet(input)?;
    Ok((input, BasicNack { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 }))
}

#[inline]
fn reject(input: &[u8]) -> Parsed<'_, BasicReject> {
    let (input, delivery_tag) = long_long(input)?;
    let (input, bits) = octet(input)?;
    Ok((input, BasicReject { delivery_tag, requeue: bits & 1 != 0 }))
}

fn qos(input: &[u8]) -> Parsed<'_, BasicQos> {
    let (input, prefetch_size) = long(input)?;
    let (input, prefetch_count) = short(input)?;
    let (input, bits) = octet(input)?;
    Ok((input, BasicQos { prefetch_size, prefetch_count, global: bits & 1 != 0 }))
}

/// cancel-ok is not accepted: the broker's own basic.cancel asks for no answer, and RabbitMQ answers it with 503.
pub(super) fn client_method(method: AMQPMethod, table: table::Table<'_>) -> Option<ClientMethod<'_>> {
    Some(match method {
        AMQPMethod::Consume(method) => ClientMethod::BasicConsume(WithTable { method, table }),
        AMQPMethod::Cancel(cancel) => ClientMethod::BasicCancel(cancel),
        AMQPMethod::Get(get) => ClientMethod::BasicGet(get),
        AMQPMethod::Recover(recover) => ClientMethod::BasicRecover(recover),
        AMQPMethod::RecoverAsync(recover) => ClientMethod::BasicRecoverAsync(recover),
        _ => return None,
    })
}

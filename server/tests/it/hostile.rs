//! Clients that are slow, or mean it. Each costs itself a call or a connection, and nobody else anything.
//!
//! Beside this: `transport` has those that are no clients at all, `bad_input` and `fuzz` what is wrong with requests.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use holdfast_proto::v1::{
    CreateMapRequest, GetMapRequest, ListElementsRequest, ListElementsResponse, MapKind, UpdateRequest,
};
use prost::Message;
use tokio::io::AsyncWriteExt;

use crate::harness::{Api, Server, connect, map_of, put, simulated, soon, until};
use crate::http2::{Http2, framed};
use crate::raw::{Raw, frame};
use crate::status_table::refused;

const SHORT: Duration = Duration::from_millis(200);

const GET_MAP: &str = "holdfast.v1.MapService/GetMap";
const LIST_ELEMENTS: &str = "holdfast.v1.StorageService/ListElements";

/// Types of frames and a flag (RFC 9113, section 6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

async fn impatient() -> Server {
    Server::with(|config| config.transport.transfer_timeout = SHORT).await
}

/// Somebody else's connection works as ever, and nothing of what was done is left.
async fn still_serves(server: &Server) {
    let mut api = Api::new(connect(&server.endpoints[0]).await);
    soon("an answer", api.stats()).await;
    until("no call is left", async || (server.in_flight() == 0).then_some(())).await;
}

fn get_map(name: &str) -> Vec<u8> {
    framed(&GetMapRequest { name: name.to_owned() }.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_come_is_refused_in_time() {
    let server = impatient().await;
    let client = Http2::connect(server.tcp()).await;
    let nothing = client.begin(GET_MAP, &[]).await.unwrap();
    let mut half = client.begin(GET_MAP, &[]).await.unwrap();
    half.body.send_data(Bytes::from_static(&[0, 0, 0, 0, 3, 10, 1]), false).unwrap();
    // The message is there, but for the word that there is no other.
    let mut open = client.begin(GET_MAP, &[]).await.unwrap();
    open.body.send_data(get_map("m").into(), false).unwrap();
    for call in [nothing, half, open] {
        refused(call.message().await, "REQUEST_DEADLINE");
    }
    still_serves(&server).await;
}

/// Every byte is progress, and yet there is an end to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_trickles_in_is_refused_in_time() {
    let server = impatient().await;
    let client = Http2::connect(server.tcp()).await;
    let mut call = client.begin(GET_MAP, &[]).await.unwrap();
    call.body.send_data(Bytes::from_static(&[0, 0, 0, 255, 255]), false).unwrap();
    let trickle = async {
        let mut pause = tokio::time::interval(SHORT / 20);
        loop {
            pause.tick().await;
            if call.body.send_data(Bytes::from_static(&[10]), false).is_err() {
                return;
            }
        }
    };
    soon("the server has enough", trickle).await;
    refused(call.message().await, "REQUEST_DEADLINE");
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_after_its_callers_deadline_is_refused() {
    let server = Server::start().await;
    let client = Http2::connect(server.tcp()).await;
    let call = client.begin(GET_MAP, &[("grpc-timeout", "100m")]).await.unwrap();
    refused(call.message().await, "REQUEST_DEADLINE");
    still_serves(&server).await;
}

/// A map with a page of about a megabyte, and the request for it.
async fn large_page(server: &Server) -> ListElementsRequest {
    const VALUE: usize = 60_000;
    let mut api = server.api();
    api.create_map(CreateMapRequest { value_size: VALUE as u32, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 0, 30).await;
    for id in 0..30 {
        let update = UpdateRequest { value: vec![7; VALUE].into(), ..put("m", simulated(id), 0) };
        api.storage.update(update).await.unwrap();
    }
    ListElementsRequest { map: "m".to_owned(), page_size: 100, page_token: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read_is_dropped_in_time() {
    let server = impatient().await;
    let page = framed(&large_page(&server).await.encode_to_vec());
    for window in [0, 1, 100_000] {
        let client = Http2::with_window(server.tcp(), window).await;
        let mut call = client.begin(LIST_ELEMENTS, &[]).await.unwrap();
        call.body.send_data(page.clone().into(), true).unwrap();
        let mut body = call.answer().await.unwrap().into_body();
        let mut read = 0;
        let end = loop {
            match soon("the end of it", body.data()).await {
                Some(Ok(data)) => read += data.len(),
                Some(Err(error)) => break error,
                None => panic!("the whole page went through a window of {window} bytes"),
            }
        };
        assert!(end.is_reset() && end.reason() == Some(Reason::CANCEL), "{end}");
        assert_eq!(read, window as usize);
        // It is the call that is over, not the connection.
        if window > 1000 {
            refused(client.unary(GET_MAP, get_map("absent")).await, "MAP_NOT_FOUND");
        }
    }
    still_serves(&server).await;
}

/// Sliced or not, what is read comes whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_read_slowly_comes_whole() {
    let server = Server::start().await;
    let page = large_page(&server).await;
    let client = Http2::with_window(server.tcp(), 10_000).await;
    let message = client.unary(LIST_ELEMENTS, framed(&page.encode_to_vec())).await.unwrap();
    let slowly = ListElementsResponse::decode(&message[5..]).unwrap();
    let at_once = server.api().storage.list_elements(page).await.unwrap().into_inner();
    assert!(message.len() > 100 * 10_000, "{} bytes are not many windows", message.len());
    assert_eq!(slowly, at_once);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_leaves_nothing_behind() {
    let server = Server::start().await;
    let client = Http2::connect(server.tcp()).await;
    let mut reset = 0;
    for _ in 0..5_000 {
        // The server may have had enough, and closed the connection.
        let Ok(mut call) = client.begin(GET_MAP, &[]).await else { break };
        if call.body.send_data(get_map("m").into(), true).is_err() {
            break;
        }
        call.body.send_reset(Reason::CANCEL);
        reset += 1;
    }
    assert!(reset > 0);
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_an_end_cost_the_connection() {
    let server = Server::start().await;
    let mut raw = Raw::unresponsive(server.tcp()).await;
    raw.send(&frame(HEADERS, 1, &[])).await;
    for _ in 0..10_000 {
        // A literal field, never indexed: its name and its value.
        let mut field = vec![0x10, 1, b'x', 100];
        field.extend([b'y'; 100]);
        raw.send(&frame(CONTINUATION, 1, &field)).await;
    }
    raw.closed().await;
    still_serves(&server).await;
}

/// Each asks for an answer, and nobody reads those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_and_settings_is_its_senders_matter() {
    let server = Server::start().await;
    let mut raw = Raw::unresponsive(server.tcp()).await;
    let batch = [frame(PING, 0, &[0; 8]), frame(SETTINGS, 0, &[])].concat().repeat(1_000);
    // Until the server takes no more, which it does not have to while its own words are not read.
    let flood = async {
        for _ in 0..500 {
            raw.send(&batch).await;
        }
    };
    let _ = tokio::time::timeout(5 * SHORT, flood).await;
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_that_it_is_done_is_let_go() {
    let server = Server::start().await;
    let mut raw = Raw::unresponsive(server.tcp()).await;
    raw.0.shutdown().await.unwrap();
    raw.closed().await;
    let mut silent = Raw::silent(server.tcp()).await;
    silent.0.shutdown().await.unwrap();
    silent.closed().await;
    still_serves(&server).await;
}

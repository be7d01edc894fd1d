//! What tools ask a server that they do not know: reflection, in both versions.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;

use crate::harness::{Server, soon};

/// The services that are advertised, and the file that has a symbol; the two versions differ in their package only.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            async fn ask(channel: Channel, request: MessageRequest) -> MessageResponse {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let mut client = ServerReflectionClient::new(channel);
                let answers = client.server_reflection_info(tokio_stream::once(request));
                let mut answers = soon("a stream", answers).await.unwrap().into_inner();
                soon("an answer", answers.message()).await.unwrap().unwrap().message_response.unwrap()
            }

            pub async fn services(channel: Channel) -> BTreeSet<String> {
                match ask(channel, MessageRequest::ListServices(String::new())).await {
                    MessageResponse::ListServicesResponse(list) => {
                        list.service.into_iter().map(|service| service.name).collect()
                    }
                    other => panic!("{other:?}"),
                }
            }

            pub async fn file_of(channel: Channel, symbol: &str) -> FileDescriptorProto {
                match ask(channel, MessageRequest::FileContainingSymbol(symbol.to_owned())).await {
                    MessageResponse::FileDescriptorResponse(files) => {
                        FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap()
                    }
                    other => panic!("{symbol}: {other:?}"),
                }
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_reflection_know_the_api_and_the_error_details() {
    let server = Server::start().await;
    let mut expected: BTreeSet<_> =
        ["Map", "Storage", "Owner", "Program", "Admin"].map(|name| format!("holdfast.v1.{name}Service")).into();
    expected.insert("grpc.health.v1.Health".to_owned());
    let listed = [v1::services(server.channel()).await, v1alpha::services(server.channel()).await];
    for (listed, own) in listed.into_iter().zip(["v1", "v1alpha"]) {
        let own = BTreeSet::from([format!("grpc.reflection.{own}.ServerReflection")]);
        assert_eq!(listed, &expected | &own);
    }
    for symbol in
        ["holdfast.v1.StorageService.Update", "holdfast.v1.Reason", "google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
    {
        let files = [v1::file_of(server.channel(), symbol).await, v1alpha::file_of(server.channel(), symbol).await];
        for file in files {
            assert!(symbol.starts_with(file.package()), "{symbol} in {}", file.name());
        }
    }
    // With the comments, which are the documentation.
    let file = v1::file_of(server.channel(), "holdfast.v1.Reason").await;
    assert!(!file.source_code_info.unwrap().location.is_empty());
}

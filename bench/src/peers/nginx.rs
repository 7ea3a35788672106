//! nginx as a TCP relay, and as the TLS end of a WebSocket relay.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{
    CONNECTIONS_MAX, Ground, HOST, Peer, Relay, folder, free_port, on_core, websockify, write,
};
use crate::load::{Target, Upgrade};

/// Where Debian puts modules that are loaded at start.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn stream(ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let listen = free_port()?;
    let server = ground.server.plain;
    let module = if Path::new(STREAM_MODULE).is_file() {
        format!("load_module {STREAM_MODULE};\n")
    } else {
        String::new()
    };
    let body = format!(
        "stream {{\n\
             server {{\n\
                 listen {listen} backlog=4096;\n\
                 proxy_pass {server};\n\
                 proxy_timeout 1h;\n\
             }}\n\
         }}\n"
    );
    let command = command(ground, folder.path(), &module, &body)?;
    Relay::single(Peer::Nginx.name(), Target::tcp(listen), &command, folder)?.ready(listen)
}

/// TLS and HTTP by nginx, WebSocket by websockify behind it: how noVNC is put on the web.
pub(super) fn before_websockify(ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let (listen, inner) = (free_port()?, free_port()?);
    let temporary = folder.path().display();
    let (chain, key) = (
        ground.certificate.chain.display(),
        ground.certificate.key.display(),
    );
    let body = format!(
        "http {{\n\
             access_log off;\n\
             client_body_temp_path {temporary}/body;\n\
             proxy_temp_path {temporary}/proxy;\n\
             fastcgi_temp_path {temporary}/fastcgi;\n\
             uwsgi_temp_path {temporary}/uwsgi;\n\
             scgi_temp_path {temporary}/scgi;\n\
             server {{\n\
                 listen {listen} ssl backlog=4096;\n\
                 ssl_certificate {chain};\n\
                 ssl_certificate_key {key};\n\
                 ssl_protocols TLSv1.2 TLSv1.3;\n\
                 location / {{\n\
                     proxy_pass http://{inner};\n\
                     proxy_http_version 1.1;\n\
                     proxy_set_header Upgrade $http_upgrade;\n\
                     proxy_set_header Connection \"upgrade\";\n\
                     proxy_read_timeout 1h;\n\
                     proxy_send_timeout 1h;\n\
                 }}\n\
             }}\n\
         }}\n"
    );
    let command = command(ground, folder.path(), "", &body)?;
    let upgrade = Upgrade {
        path: "/websockify".to_owned(),
        host: HOST.to_owned(),
        ..Upgrade::default()
    };
    let target = Target::wss(listen, HOST, vec![upgrade]);
    let mut relay = Relay::single(Peer::Nginx.name(), target, &command, folder)?;
    relay.add("websockify", &websockify::command(ground, inner, None)?)?;
    relay.ready(inner)?.ready(listen)
}

fn command(ground: &Ground<'_>, folder: &Path, before: &str, body: &str) -> Result<Command> {
    let text = format!(
        "{before}\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile {};\n\
         pid {}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{\n    worker_connections {};\n}}\n\
         {body}",
        2 * CONNECTIONS_MAX,
        folder.display(),
        2 * CONNECTIONS_MAX,
    );
    let file = folder.join("nginx.conf");
    write(&file, &text)?;
    let mut command = on_core(ground.cores.relay, &ground.binaries.get("nginx")?);
    command.args(["-e", "stderr", "-p"]).arg(folder);
    command.arg("-c").arg(&file);
    Ok(command)
}

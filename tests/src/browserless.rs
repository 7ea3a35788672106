//! What a browser does at a gateway, without one: pages, cookies, sign-in, WebSocket, raw bytes.

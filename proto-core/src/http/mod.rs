//! HTTP/1.1: the server machine, routes, WHIP and WHEP, pages.

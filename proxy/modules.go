package proxy

// modules is the one ordered list of everything that can be configured. Within
// a phase, handlers run in this order; filters see an answer and its body in
// this order too (nginx: auto/modules, read backwards). What comes in slices is
// made one answer. Conditional requests are settled as long as the validators are
// those of the source; then fields are added. What the upstream compressed is
// decompressed before anything looks into the body; what is put around it can be
// substituted, and both can hold server side includes. Here the answers of
// subrequests are put in. All of it is compressed together, and the parts that
// Range asks for are cut last, out of what really is sent.
func modules() []Module {
	return []Module{
		// the process
		mainModule(),
		errlogModule(),
		eventsModule(),
		eventCoreModule(),
		epollModule(),
		quicBPFModule(),
		regexModule(),
		opensslCacheModule(),
		threadPoolModule(),
		confModule(),

		// the http core and what it answers by itself
		httpModule(),
		coreModule(),
		logModule(),
		upstreamModule(),
		upstreamKeepaliveModule(),
		upstreamZoneModule(),
		upstreamHashModule(),
		upstreamIPHashModule(),
		upstreamLeastConnModule(),
		upstreamLeastTimeModule(),
		upstreamRandomModule(),
		upstreamStickyModule(),
		acmeModule(),
		sslModule(),
		http2Module(),
		http3Module(),

		// the stream block
		streamModule(),
		streamCoreModule(),
		streamSetModule(), // before limit_conn, which counts by what it sets
		streamSSLModule(),
		streamSSLPrereadModule(),
		streamReturnModule(),
		streamPassModule(),

		// before content
		realipModule(),
		realipLateModule(),
		rewriteModule(),
		mapModule(),
		refererModule(),
		geoModule(),
		splitClientsModule(),
		browserModule(),
		secureLinkModule(),
		limitReqModule(),
		limitConnModule(),
		accessModule(),
		authBasicModule(),
		authRequestModule(),
		mirrorModule(),

		tryFilesModule(),

		// content
		proxyModule(),
		streamProxyModule(), // changes some of proxy's defaults
		fastcgiModule(),
		uwsgiModule(),
		scgiModule(),
		memcachedModule(),
		tunnelModule(),
		grpcModule(),
		stubStatusModule(),
		emptyGifModule(),
		flvModule(),
		mp4Module(),
		randomIndexModule(),
		indexModule(),
		autoindexModule(),
		davModule(),
		gzipStaticModule(),
		staticModule(),

		// filters
		sliceModule(),
		notModifiedModule(),
		headersModule(),
		copyFilterModule(),
		useridModule(),
		gunzipModule(),
		additionModule(),
		subModule(),
		charsetModule(),
		ssiModule(),
		gzipModule(),
		rangeModule(),
	}
}

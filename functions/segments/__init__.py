"""What the functions and the tools share: a segment task's events, rules and ledger, and how the RTC API is called.

A module imports only from the lines below its own; `make lint` checks this.

    clients     the AWS clients, the API and the table of a function environment
    ledger, rtc, calls          DynamoDB, the RTC API, and how it is called
    circuit, credentials, pace  what an API call needs
    rules       what a stop event may stop
    events      what a message says
    envelopes   the wrappings around it
    batches, errors, memory, settings, telemetry, times
"""

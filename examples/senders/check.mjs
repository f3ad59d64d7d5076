import { readFileSync } from "node:fs";
import Ajv from "ajv";

const schema = JSON.parse(readFileSync("contracts/event.schema.json", "utf8"));
const validate = new Ajv().compile(schema);
const event = { EventType: "RoomEnded", AppId: "661e", RoomId: "room-1", TaskId: "audio" };
if (!validate(event)) console.error(validate.errors);

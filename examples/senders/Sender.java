import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Instant;
import java.util.Map;
import software.amazon.awssdk.services.sqs.SqsClient;

public class Sender {
    public static void main(String[] arguments) throws Exception {
        var event = Map.of(
            "EventType", "RoomEnded",
            "EventTime", Instant.now().toString(),
            "AppId", "661e",
            "RoomId", "room-1",
            "TaskId", "audio"
        );
        var body = new ObjectMapper().writeValueAsString(event);
        try (var sqs = SqsClient.create()) {
            sqs.sendMessage(message -> message.queueUrl(System.getenv("EVENT_QUEUE_URL")).messageBody(body));
        }
    }
}
